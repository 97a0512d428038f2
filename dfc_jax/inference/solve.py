"""From crops to fitted faces, in batches: `Solver.locate` any crop, `Solver.finish` the winners."""

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple, TypeVar

import jax
import numpy as np
from flax import struct
from jax.typing import ArrayLike

from dfc_jax.fitting import N_IDENTITY, Uncertainty
from dfc_jax.inference.onnx_network import OnnxNetwork
from dfc_jax.inference.programs import (
    Known,
    correspond,
    correspond_and_segment,
    finish_each,
    fit_each,
    lift_each,
    summarise_each,
)
from dfc_jax.inference.runtimes import DEFAULT_RUNTIME
from dfc_jax.inference.segmentation import Segmentation, segment
from dfc_jax.morphable.linear import FaceModel
from dfc_jax.systems.dfc.lift import N_CORRESPONDENCES
from dfc_jax.systems.dfc.networks import NetSpec, Variables, encode_target
from dfc_jax.systems.dfc.template import make_template
from dfc_jax.types import Array, ByValue, Correspondences, SurfacePoints

T = TypeVar("T")
# Flow, matchability and segmentation of crops, the latter None without such a network, as
# `correspond` and `segment` compute them.
Network = Callable[[np.ndarray], tuple[ArrayLike, ArrayLike, Array | None]]


@dataclasses.dataclass(frozen=True, eq=False)
class Estimate(ByValue):
    """A face located in a crop, before its mesh is rasterized. In NumPy but for `dense`.

    Attributes:
      landmarks_px: (68, 2) crop pixels.
      rotation: (3, 3) model to camera.
      residual_px: root mean square of the fit's inliers, crop pixels.
      matchable_share: share of the crop's pixels that are matchable.
      certainty: mean probability of being matchable over these pixels, 0 without any.
      dense: the rest.
    """

    landmarks_px: np.ndarray
    rotation: np.ndarray
    residual_px: float
    matchable_share: float
    certainty: float
    dense: Any = dataclasses.field(repr=False)


@struct.dataclass(eq=False)
class Solution(ByValue):
    """A face fitted to a crop of S x S pixels, in NumPy.

    Attributes:
      flow: (S, S, 2) crop pixels, from the crop to the template.
      matchability: (S, S) probability of being matchable.
      refined_flow, refined_mask: (S, S, 2) and bool (S, S), both completed by `recover`.
      fitted_mask: (S, S) bool, where the fitted mesh is matchable.
      landmarks_px: (68, 2) crop pixels.
      landmarks3d_mm: (68, 3) camera space.
      vertices_mm: (V, 3) camera space.
      rotation: (3, 3) model to camera.
      translation_mm: (3,).
      focal_px: () crop pixels.
      principal_point: (2,) crop pixels.
      identity: (K,) standard deviations.
      expression: (E,) weights in [0, 1].
      residual_px: () root mean square of the fit's inliers, crop pixels.
      uncertainty: how sure all of this is, in crop pixels.
      segmentation: (S, S) probability of showing the face, None without such a network.
    """

    flow: np.ndarray
    matchability: np.ndarray
    refined_flow: np.ndarray
    refined_mask: np.ndarray
    fitted_mask: np.ndarray
    landmarks_px: np.ndarray
    landmarks3d_mm: np.ndarray
    vertices_mm: np.ndarray
    rotation: np.ndarray
    translation_mm: np.ndarray
    focal_px: np.ndarray
    principal_point: np.ndarray
    identity: np.ndarray
    expression: np.ndarray
    residual_px: np.ndarray
    uncertainty: Uncertainty
    segmentation: np.ndarray | None = None


class Buckets(NamedTuple):
    """The batch sizes that programs are compiled for.

    Attributes:
      sizes: from the smallest, which is 1.
      at_once: how many of them are compiled from the start, and serve single photographs; the
        others are compiled when many photographs first need them.
      padded: whether batches between two sizes are filled up, or cut into smaller ones.
    """

    sizes: tuple[int, ...]
    at_once: int
    padded: bool

    @property
    def largest_at_once(self) -> int:
        return self.sizes[self.at_once - 1]

    def size_for(self, count: int, largest: int) -> int:
        """The size of the next batch when there are `count` crops."""
        allowed = [size for size in self.sizes if size <= largest]
        if self.padded:
            return next((size for size in allowed if size >= count), allowed[-1])
        return max(size for size in allowed if size <= count)


# On two cores four crops at a time take 18 % less time than one after the other: too little for
# another compilation.
CPU_BUCKETS = Buckets((1,), at_once=1, padded=False)
ACCELERATOR_BUCKETS = Buckets((1, 4, 16, 64), at_once=2, padded=True)


def buckets() -> Buckets:
    """Those of the device that JAX uses."""
    return CPU_BUCKETS if jax.default_backend() == "cpu" else ACCELERATOR_BUCKETS


class Solver:
    """Network, fit and mesh for batches of crops; one program of each for each size of `buckets`.

    Several threads can share one.

    Args:
      variables, spec: the network and what it is.
      model: the face model that the network was trained for.
      flip_test: see `correspond`.
      runtime: what runs the network, one of `RUNTIMES`; the rest is JAX's.
      segmentation: says which pixels show the face; None where the network alone decides.
    """

    def __init__(
        self,
        variables: Variables,
        spec: NetSpec,
        model: FaceModel,
        flip_test: bool = False,
        runtime: str = DEFAULT_RUNTIME,
        segmentation: Segmentation | None = None,
    ) -> None:
        self.spec, self.model, self.flip_test = spec, model, flip_test
        self.buckets = buckets()
        # The fit takes as long to compile as all the rest, so both compile at the same time.
        with ThreadPoolExecutor(1) as pool:
            fitted = pool.submit(self._compile_fits)
            self.template = make_template(model)
            # Not `jnp.asarray` leaf by leaf, which compiles a copy for each shape.
            self.segmentation = jax.device_put(segmentation)
            self.network = self._network(variables, runtime)
            for size in self.buckets.sizes[: self.buckets.at_once]:
                self._compile(size)
            fitted.result()

    def _network(self, variables: Variables, runtime: str) -> Network:
        """`correspond` of this network, and `segment` of the segmentation."""
        told = self.segmentation
        if runtime == "onnx":
            image = np.asarray(self.template.image)
            network = OnnxNetwork(variables, self.spec, image, self.flip_test)
            if told is None:
                return lambda crops: (*network(crops), None)
            return lambda crops: (*network(crops), segment(crops, told, self.flip_test))
        self.variables = jax.device_put(variables)
        self.code = encode_target(self.variables, self.template.image[None], self.spec)
        given = self.variables, self.code, self.spec, self.flip_test
        if told is None:
            return lambda crops: (*correspond(crops, *given), None)
        return lambda crops: correspond_and_segment(crops, *given, told)

    def _compile(self, size: int) -> None:
        black = np.zeros((size, *self.template.image.shape), np.float32)
        seen = self.network(black)
        lifted = lift_each(self.template, *seen)
        mean = self.template.params
        mean = dataclasses.replace(mean, identity=mean.identity[:N_IDENTITY])
        means = jax.tree.map(lambda a: np.stack([a] * size), jax.device_get(mean))
        centres = self._stacked([self._unknown], size).principal_point
        params = jax.device_put(means)
        _, dense = summarise_each(*seen, lifted, centres, params, self.model)
        finish_each(dense, self.template, self.model)

    def _compile_fits(self) -> None:
        for size in self.buckets.sizes[: self.buckets.at_once]:
            weight = jax.device_put(np.zeros((size, N_CORRESPONDENCES), np.float32))
            pixels = jax.device_put(np.zeros((size, N_CORRESPONDENCES, 2), np.float32))
            corners = jax.device_put(np.zeros((size, N_CORRESPONDENCES, 3), np.float32))
            ids = jax.device_put(np.zeros((size, N_CORRESPONDENCES), np.int32))
            nothing = Correspondences(pixels, SurfacePoints(ids, corners), weight)
            centres = Known(jax.device_put(np.zeros((size, 2), np.float32)))
            fit_each(self.model, nothing, centres)

    def wait(self) -> None:
        """It is ready from the start."""

    def locate(
        self,
        crops: Sequence[np.ndarray],
        largest: int | None = None,
        known: Sequence[Known | None] | None = None,
    ) -> list[Estimate | None]:
        """The face of each crop (S, S, 3) in [0, 1]; None where what was found is not finite, or
        its landmarks span less than `MIN_EXTENT_PX`.

        `largest` limits the batches, by default to what is compiled from the start. `known` is what
        is known of each beforehand; without, the principal point is the crop's centre.
        """
        told = [each or self._unknown for each in known or [None] * len(crops)]
        found: list[Estimate | None] = [None] * len(crops)
        for is_known in (False, True):
            those = [i for i, one in enumerate(told) if (one.identity is not None) == is_known]
            parts = self._parts([(crops[i], told[i]) for i in those], largest)
            solved = (estimate for part in parts for estimate in self._locate(*part))
            for i, estimate in zip(those, solved, strict=True):
                found[i] = estimate
        return found

    def finish(self, estimates: Sequence[Estimate], largest: int | None = None) -> list[Solution]:
        """The mesh, the completed flow and the landmarks of faces that were located."""
        return [found for part in self._parts(estimates, largest) for found in self._finish(*part)]

    def _parts(self, items: Sequence[T], largest: int | None) -> Iterator[tuple[Sequence[T], int]]:
        """Batches, each with its size when it is filled up."""
        start, largest = 0, largest or self.buckets.largest_at_once
        while start < len(items):
            size = self.buckets.size_for(len(items) - start, largest)
            yield items[start : start + size], size
            start += size

    @property
    def _unknown(self) -> Known:
        middle = np.float32((self.template.size - 1) / 2.0)
        return Known(np.array([middle, middle]))

    @staticmethod
    def _stacked(known: Sequence[Known], size: int) -> Known:
        """Of a batch, each with a leading axis."""
        return jax.tree.map(lambda *a: np.stack(a, dtype=np.float32), *_padded(known, size))

    def _locate(
        self, items: Sequence[tuple[np.ndarray, Known]], size: int
    ) -> Iterator[Estimate | None]:
        crops, known = zip(*items, strict=True)
        batch, told = np.stack(_padded(crops, size)), self._stacked(known, size)
        seen = self.network(batch)
        lifted = lift_each(self.template, *seen)
        params, residual = fit_each(self.model, lifted, told)
        found, dense = summarise_each(*seen, lifted, told.principal_point, params, self.model)
        rows = {name: np.asarray(value) for name, value in found.items()}
        residuals = np.asarray(residual)
        for i in range(len(crops)):
            if not (rows["sound"][i] and np.isfinite(residuals[i])):
                yield None
                continue
            yield Estimate(
                landmarks_px=rows["landmarks_px"][i],
                rotation=rows["rotation"][i],
                residual_px=float(residuals[i]),
                matchable_share=float(rows["matchable_share"][i]),
                certainty=float(rows["certainty"][i]),
                dense=dense[i],
            )

    def _finish(self, estimates: Sequence[Estimate], size: int) -> Iterator[Solution]:
        dense = _padded([estimate.dense for estimate in estimates], size)
        found = finish_each(dense, self.template, self.model)
        rows = jax.tree.map(np.asarray, found)
        for i, estimate in enumerate(estimates):
            own = jax.tree.map(lambda value, i=i: value[i], rows)
            yield Solution(
                **own,
                landmarks_px=estimate.landmarks_px,
                rotation=estimate.rotation,
                residual_px=np.asarray(estimate.residual_px, np.float32),
            )


def _padded(items: Sequence[T], size: int) -> list[T]:
    """Filled up with what is there."""
    return [*items, *[items[0]] * (size - len(items))]
