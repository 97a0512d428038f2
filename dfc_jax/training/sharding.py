"""Data parallelism: the batch is split over all devices, the state is on every one.

With several processes each makes its own part of a batch (`own_part`) and hands it to its own
devices (`put_batches`); programs compiled over the mesh see the whole.
"""

from collections.abc import Sequence
from functools import partial
from typing import TypeVar

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from dfc_jax.errors import ConfigError, UserError
from dfc_jax.types import Array

Tree = TypeVar("Tree")


class BatchError(UserError):
    """A batch does not split evenly; the message names the array and over what."""


def make_mesh() -> Mesh:
    """All devices (of all processes) along one axis, "data"."""
    # By position: the names of these arguments differ between jax 0.10 and 0.11.
    return jax.make_mesh((jax.device_count(),), ("data",), (AxisType.Auto,))


def replicated(mesh: Mesh) -> NamedSharding:
    """The same array on every device."""
    return NamedSharding(mesh, PartitionSpec())


def split_batches(mesh: Mesh) -> NamedSharding:
    """Stacked batches (K, B, ...): the second axis split over the devices."""
    return NamedSharding(mesh, PartitionSpec(None, "data"))


def check_split(name: str, count: int) -> None:
    """Raises ConfigError if ``config.<name>`` examples do not split evenly over all devices."""
    devices = jax.device_count()
    if count % devices:
        raise ConfigError(
            f"config.{name} is {count}, which does not split evenly over {devices} devices"
        )


def own_part(examples: np.ndarray) -> np.ndarray:
    """This process's share of the examples (B, ...) of a batch, (B / processes, ...).

    Raises:
      BatchError: B is not a multiple of the number of processes.
    """
    if len(examples) % jax.process_count():
        raise BatchError(
            f"{len(examples)} examples do not split evenly over {jax.process_count()} processes"
        )
    return np.split(examples, jax.process_count())[jax.process_index()]


def put_batches(batches: Sequence[Tree], mesh: Mesh) -> Tree:
    """K batches with leaves (B, ...), this process's parts, as one with leaves (K, B_all, ...) on
    the devices.

    Raises:
      BatchError: B is not a multiple of this process's number of devices.
    """
    devices = len(mesh.local_devices)
    sharding = split_batches(mesh)
    for path, leaf in jax.tree_util.tree_leaves_with_path(batches[0]):
        if leaf.ndim == 0 or leaf.shape[0] % devices:
            name = jax.tree_util.keystr(path, simple=True, separator="/")
            raise BatchError(
                f"the batch must split evenly over {devices} devices; {name} has shape {leaf.shape}"
            )

    def put(*leaves: np.ndarray) -> jax.Array:
        return jax.make_array_from_process_local_data(sharding, np.stack(leaves))

    return jax.tree.map(put, *batches)


def own_copy(tree: Tree) -> Tree:
    """Replicated arrays as arrays of this process's first device, for work that it does alone."""
    return jax.tree.map(lambda leaf: leaf.addressable_data(0), tree)


def everywhere(key: Array, mesh: Mesh) -> Array:
    """A key on all devices; `device_put` does not take keys to those of other processes."""
    wrap = partial(jax.random.wrap_key_data, impl=jax.random.key_impl(key))
    return jax.jit(wrap, out_shardings=replicated(mesh))(jax.device_get(jax.random.key_data(key)))
