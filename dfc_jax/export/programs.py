"""Programs for servers: from crops to correspondences or faces, for JAX alone to load and call.

`jax.export` keeps what XLA compiles, weights and face model inside, for a CPU and for a GPU and for
any number of crops. What a program is made of is the JSON in its `fun_name`.
"""

import dataclasses
import json
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.export
import jax.numpy as jnp

from dfc_jax.inference.programs import Known, fit_residual, lift_with_eyes, summarise
from dfc_jax.morphable.linear import FaceModel
from dfc_jax.nets.registry import Variables
from dfc_jax.ops.rotations import matrix_to_angles
from dfc_jax.systems.dfc.networks import NetSpec, encode_target
from dfc_jax.systems.dfc.onnx_model import OUTPUTS, correspond_alone
from dfc_jax.systems.dfc.template import Template
from dfc_jax.types import Array

PLATFORMS = ("cpu", "cuda")
Program = Callable[[Array], dict[str, Array]]


def network_program(variables: Variables, spec: NetSpec, template: Template) -> Program:
    """Crops (N, S, S, 3) to "flow" and "matchability", see `correspond_alone`."""
    code = encode_target(variables, template.image[None], spec)

    def run(crops: Array) -> dict[str, Array]:
        found = correspond_alone(crops, variables, code, spec)
        return dict(zip(OUTPUTS, found, strict=True))

    return run


def face_program(
    variables: Variables, spec: NetSpec, model: FaceModel, template: Template
) -> Program:
    """Crops (N, S, S, 3) to all of `network_program`, and the face that `Solver.locate` fits.

    The names are those of `inference.solve.Solution`, and besides: "angles_deg" (N, 3) of yaw,
    pitch and roll; "status" (N,), see `fitting.Status`; "matchable_share", "certainty" (N,), see
    `inference.solve.Estimate`; "sound" (N,) bool, without which a crop's numbers mean nothing.
    """
    network = network_program(variables, spec, template)

    def one(flow: Array, probability: Array) -> dict[str, Array]:
        correspondences = lift_with_eyes(template, flow, probability)
        centre = template.camera.principal_point
        result, residual = fit_residual(model, correspondences, Known(centre))
        params = result.params
        found, vertices, landmarks = summarise(model, flow, probability, centre, params)
        return {
            **found,
            "sound": found["sound"] & jnp.isfinite(residual),
            "angles_deg": matrix_to_angles(found["rotation"]),
            "landmarks3d_mm": landmarks,
            "vertices_mm": vertices,
            "translation_mm": params.translation_mm,
            "focal_px": params.focal_px,
            "identity": params.identity,
            "expression": params.expression,
            "residual_px": residual,
            "status": result.status,
        }

    def run(crops: Array) -> dict[str, Array]:
        found = network(crops)
        flows = tuple(found.values())
        # As `ops.batches.each`, but the device is known only where the program runs.
        faces = jax.lax.platform_dependent(
            *flows, cpu=partial(_one_by_one, one), default=jax.vmap(one)
        )
        return {**found, **faces}

    return run


def _one_by_one(one: Callable[..., Any], *flows: Array) -> Any:
    return jax.lax.map(lambda each: one(*each), flows)


def serialized(program: Program, size: int, metadata: dict[str, str]) -> bytes:
    """A program of crops of `size` pixels, for any number of them, for `jax.export.deserialize`."""
    (batch,) = jax.export.symbolic_shape("N")
    crops = jax.ShapeDtypeStruct((batch, size, size, 3), jnp.float32)
    exported = jax.export.export(jax.jit(program), platforms=PLATFORMS)(crops)
    return bytes(dataclasses.replace(exported, fun_name=json.dumps(metadata)).serialize())
