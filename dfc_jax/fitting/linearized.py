"""The linear model ``r + J h`` of a residual about a point, in the forms a solver may hold it in.

Every form solves the damped problem

    min over h of  ||r + J h||^2 + sum_i damping_i h_i^2

with some of the unknowns held. `NormalEquations` squares the Jacobian, which is fast and loses
steps along which the residual changes by less than a thousandth (float32) of what it changes along
others. `StackedQR` factors the Jacobian itself and loses them at a millionth, at some six times the
price. `ArrowEquations` are the normal equations of frames that share some of their unknowns: their
price grows with the number of frames instead of its cube.
"""

import dataclasses
from typing import Any, Protocol, Self

import jax
import jax.numpy as jnp
from flax import struct
from jax.scipy.linalg import cho_factor, cho_solve, solve_triangular

from dfc_jax.types import Array, ByValue


class Linearized(Protocol):
    """What a Levenberg-Marquardt step asks of a linear model with n unknowns.

    Attributes:
      gradient: (n,) ``J^T r``.
      diagonal: (n,) of ``J^T J``.
    """

    @classmethod
    def of(cls, jacobian: Any, residual: Array) -> Self:
        """From the Jacobian, for every entry of the residual, and the residual."""
        ...

    @property
    def gradient(self) -> Array: ...

    @property
    def diagonal(self) -> Array: ...

    def curvature(self, step: Array) -> Array:
        """``||J step||^2``, ()."""
        ...

    def with_gradient(self, gradient: Array) -> Self:
        """The matrix ``J^T J`` as it is, with the gradient of another point."""
        ...

    def solve(self, damping: Array, held: Array, step: Array) -> tuple[Array, Array]:
        """The best step (n,), not finite where the matrix is not positive definite; and the least
        pivot (), what is left of a diagonal entry after elimination, as a part of it: 1 where all
        columns are orthogonal, 0 where one is a combination of others.

        Args:
          damping: (n,) non-negative. Where both it and the column of J are zero, the step is zero.
          held: (n,) bool, the unknowns that do not take part.
          step: (n,) the step of these; zero for the others.
        """
        ...


@struct.dataclass(eq=False)
class NormalEquations(ByValue):
    """``J^T J`` and ``J^T r``, of a Jacobian (m, n); solved by Cholesky's factorization."""

    hessian: Array
    gradient: Array

    @classmethod
    def of(cls, jacobian: Array, residual: Array) -> Self:
        return cls(jacobian.T @ jacobian, residual @ jacobian)

    @property
    def diagonal(self) -> Array:
        return jnp.diagonal(self.hessian)

    def curvature(self, step: Array) -> Array:
        return step @ self.hessian @ step

    def with_gradient(self, gradient: Array) -> Self:
        return dataclasses.replace(self, gradient=gradient)

    def solve(self, damping: Array, held: Array, step: Array) -> tuple[Array, Array]:
        matrix = self.hessian + jnp.diag(_no_zeros(damping, self.diagonal))
        right = jnp.where(held, step, -(self.gradient + matrix @ step))
        matrix = _without(matrix, held)
        factor = cho_factor(matrix, lower=True)
        return cho_solve(factor, right), _least_pivot(factor[0], matrix)


@struct.dataclass(eq=False)
class StackedQR(ByValue):
    """The Jacobian (m, n) and the residual (m,) themselves; ``[J; sqrt(damping)]`` is factored."""

    jacobian: Array
    residual: Array

    @classmethod
    def of(cls, jacobian: Array, residual: Array) -> Self:
        return cls(jacobian, residual)

    @property
    def gradient(self) -> Array:
        return self.residual @ self.jacobian

    @property
    def diagonal(self) -> Array:
        return jnp.sum(self.jacobian**2, axis=0)

    def curvature(self, step: Array) -> Array:
        return jnp.sum((self.jacobian @ step) ** 2)

    def with_gradient(self, gradient: Array) -> Self:
        raise ValueError("StackedQR holds no matrix that several steps could share; use refresh=1")

    def solve(self, damping: Array, held: Array, step: Array) -> tuple[Array, Array]:
        root = jnp.sqrt(_no_zeros(damping, self.diagonal))
        rows = jnp.concatenate(
            [jnp.where(held, 0.0, self.jacobian), jnp.diag(jnp.where(held, 1.0, root))]
        )
        right = jnp.concatenate(
            [-(self.residual + self.jacobian @ step), jnp.where(held, step, 0.0)]
        )
        orthogonal, triangle = jnp.linalg.qr(rows)
        pivots = jnp.diagonal(triangle) ** 2 / jnp.sum(rows**2, axis=0)
        return solve_triangular(triangle, right @ orthogonal), jnp.min(pivots)


@struct.dataclass(eq=False)
class ArrowJacobian(ByValue):
    """Of F frames with m residuals each, which share k unknowns and have p of their own each.

    The unknowns are one vector ``[shared (k), own of the first frame (p), of the second, ...]``.

    Attributes:
      shared: (F, m, k).
      own: (F, m, p).
    """

    shared: Array
    own: Array


@struct.dataclass(eq=False)
class ArrowEquations(ByValue):
    """Normal equations of an `ArrowJacobian`; the frames' own unknowns are eliminated first (the
    Schur complement, as in bundle adjustment).

    Attributes:
      corner: (k, k) ``J^T J`` of the shared unknowns.
      edge: (F, k, p) between them and those of each frame.
      blocks: (F, p, p) of each frame.
      gradient: (k + F p,).
    """

    corner: Array
    edge: Array
    blocks: Array
    gradient: Array

    @classmethod
    def of(cls, jacobian: ArrowJacobian, residual: Array) -> Self:
        shared, own = jacobian.shared, jacobian.own
        flat = shared.reshape(-1, shared.shape[-1])
        return cls(
            corner=flat.T @ flat,
            edge=jnp.einsum("fmk,fmp->fkp", shared, own),
            blocks=jnp.einsum("fmp,fmq->fpq", own, own),
            gradient=jnp.concatenate(
                [residual.reshape(-1) @ flat, jnp.einsum("fm,fmp->fp", residual, own).ravel()]
            ),
        )

    @property
    def diagonal(self) -> Array:
        own = jnp.diagonal(self.blocks, axis1=1, axis2=2)
        return jnp.concatenate([jnp.diagonal(self.corner), own.ravel()])

    def curvature(self, step: Array) -> Array:
        return step @ self._times(step)

    def with_gradient(self, gradient: Array) -> Self:
        return dataclasses.replace(self, gradient=gradient)

    def solve(self, damping: Array, held: Array, step: Array) -> tuple[Array, Array]:
        damping = _no_zeros(damping, self.diagonal)
        right = jnp.where(held, step, -(self.gradient + self._times(step) + damping * step))
        (shared, own), (fixed, fixed_own) = self._split(right), self._split(held)
        more, more_own = self._split(damping)
        corner = _without(self.corner + jnp.diag(more), fixed)
        blocks = jax.vmap(lambda block, more: block + jnp.diag(more))(self.blocks, more_own)
        reduced = jax.vmap(_without)(blocks, fixed_own)
        factors = jax.vmap(lambda block: cho_factor(block, lower=True)[0])(reduced)
        edge = jnp.where(fixed[:, None] | fixed_own[:, None, :], 0.0, self.edge)
        both = jnp.concatenate([edge.swapaxes(1, 2), own[..., None]], axis=-1)
        solved = jax.vmap(lambda factor, right: cho_solve((factor, True), right))(factors, both)
        inner, alone = solved[..., :-1], solved[..., -1]
        schur = corner - jnp.einsum("fkp,fpl->kl", edge, inner)
        factor = cho_factor(schur, lower=True)
        first = cho_solve(factor, shared - jnp.einsum("fkp,fp->k", edge, alone))
        least = jnp.minimum(
            _least_pivot(factor[0], corner), jnp.min(jax.vmap(_least_pivot)(factors, reduced))
        )
        return jnp.concatenate([first, (alone - inner @ first).ravel()]), least

    def _split(self, values: Array) -> tuple[Array, Array]:
        """Those of the shared unknowns (k,), and of each frame (F, p)."""
        count = len(self.corner)
        return values[:count], values[count:].reshape(len(self.blocks), -1)

    def _times(self, step: Array) -> Array:
        """``J^T J step``."""
        shared, own = self._split(step)
        first = self.corner @ shared + jnp.einsum("fkp,fp->k", self.edge, own)
        rest = shared @ self.edge + jnp.einsum("fpq,fq->fp", self.blocks, own)
        return jnp.concatenate([first, rest.ravel()])


def _no_zeros(damping: Array, diagonal: Array) -> Array:
    """The damping, 1 for a parameter without effect: the matrix would be singular."""
    return jnp.where((damping > 0) | (diagonal > 0), damping, 1.0)


def _without(matrix: Array, held: Array) -> Array:
    """The matrix with rows and columns of the identity for what is held."""
    eye = jnp.eye(held.size, dtype=matrix.dtype)
    return jnp.where(held[:, None] | held[None, :], eye, matrix)


def _least_pivot(factor: Array, matrix: Array) -> Array:
    """Of a Cholesky factor (n, n), as part of the diagonal of what was factored."""
    return jnp.min(jnp.diagonal(factor) ** 2 / jnp.diagonal(matrix))
