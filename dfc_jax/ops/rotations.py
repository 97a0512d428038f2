"""Rotations: vectors, matrices and the pose angles of `dfc_jax.types`."""

import jax.numpy as jnp

from dfc_jax.types import Array

# Model space (y up, z out of the face) to camera space (y down, z forward) for a frontal face.
FRONTAL = ((1.0, 0.0, 0.0), (0.0, -1.0, 0.0), (0.0, 0.0, -1.0))
# [r]_x = _SKEW @ r, the matrix of the cross product with r.
_SKEW = (
    ((0.0, 0.0, 0.0), (0.0, 0.0, -1.0), (0.0, 1.0, 0.0)),
    ((0.0, 0.0, 1.0), (0.0, 0.0, 0.0), (-1.0, 0.0, 0.0)),
    ((0.0, -1.0, 0.0), (1.0, 0.0, 0.0), (0.0, 0.0, 0.0)),
)


def rotvec_to_matrix(rotvec: Array) -> Array:
    """Rodrigues' formula: (..., 3) radians to (..., 3, 3); differentiable at zero."""
    squared = jnp.sum(rotvec**2, axis=-1)[..., None, None]
    small = squared < 1e-6
    safe = jnp.where(small, 1.0, squared)
    angle = jnp.sqrt(safe)
    sinc = jnp.where(small, 1.0 - squared / 6.0, jnp.sin(angle) / angle)
    versine = jnp.where(small, 0.5 - squared / 24.0, (1.0 - jnp.cos(angle)) / safe)
    skew = jnp.sum(jnp.asarray(_SKEW) * rotvec[..., None, None, :], axis=-1)
    # The square of the skew matrix is r r^T - |r|^2 I.
    square = rotvec[..., :, None] * rotvec[..., None, :] - squared * jnp.eye(3)
    return jnp.eye(3) + sinc * skew + versine * square


def matrix_to_rotvec(matrix: Array) -> Array:
    """Inverse of `rotvec_to_matrix`: (..., 3, 3) to (..., 3), norm in [0, pi].

    Goes through the unit quaternion with the largest component as pivot, so it is accurate for
    every angle, half turns included.
    """
    m = matrix
    trace = m[..., 0, 0] + m[..., 1, 1] + m[..., 2, 2]
    diagonal = jnp.stack([m[..., 0, 0], m[..., 1, 1], m[..., 2, 2]], axis=-1)
    # Row k of 4 q_k q, for each choice of pivot k in (w, x, y, z).
    a, b, c = (
        m[..., 2, 1] - m[..., 1, 2],
        m[..., 0, 2] - m[..., 2, 0],
        m[..., 1, 0] - m[..., 0, 1],
    )
    xy, xz, yz = (
        m[..., 0, 1] + m[..., 1, 0],
        m[..., 0, 2] + m[..., 2, 0],
        m[..., 1, 2] + m[..., 2, 1],
    )
    squares = jnp.concatenate(
        [(1.0 + trace)[..., None], 1.0 + 2.0 * diagonal - trace[..., None]], axis=-1
    )
    rows = jnp.stack(
        [
            jnp.stack([squares[..., 0], a, b, c], axis=-1),
            jnp.stack([a, squares[..., 1], xy, xz], axis=-1),
            jnp.stack([b, xy, squares[..., 2], yz], axis=-1),
            jnp.stack([c, xz, yz, squares[..., 3]], axis=-1),
        ],
        axis=-2,
    )
    pivot = jnp.argmax(squares, axis=-1)[..., None, None]
    quaternion = jnp.take_along_axis(rows, pivot, axis=-2)[..., 0, :]
    quaternion = quaternion / jnp.linalg.norm(quaternion, axis=-1, keepdims=True)
    quaternion = jnp.where(quaternion[..., :1] < 0, -quaternion, quaternion)
    w, xyz = quaternion[..., :1], quaternion[..., 1:]
    squared = jnp.sum(xyz**2, axis=-1, keepdims=True)
    small = squared < 1e-10
    sine = jnp.sqrt(jnp.where(small, 1.0, squared))
    scale = jnp.where(small, 2.0 / w, 2.0 * jnp.arctan2(sine, w) / sine)
    return scale * xyz


def angles_to_rotvec(angles_deg: Array) -> Array:
    """(..., 3) yaw, pitch, roll in degrees to the rotation vector of `FaceParams`."""
    return matrix_to_rotvec(angles_to_matrix(angles_deg) @ jnp.asarray(FRONTAL))


def angles_to_matrix(angles_deg: Array) -> Array:
    """(..., 3) yaw, pitch, roll in degrees to the model-to-camera rotation (..., 3, 3)."""
    yaw, pitch, roll = jnp.moveaxis(jnp.deg2rad(angles_deg), -1, 0)
    cy, sy, cp, sp, cr, sr = (
        jnp.cos(yaw),
        jnp.sin(yaw),
        jnp.cos(pitch),
        jnp.sin(pitch),
        jnp.cos(roll),
        jnp.sin(roll),
    )
    # Rx(pitch) Ry(yaw) Rz(roll), multiplied out.
    rows = [
        [cy * cr, cy * sr, -sy],
        [-cp * sr + sp * sy * cr, cp * cr + sp * sy * sr, sp * cy],
        [sp * sr + cp * sy * cr, -sp * cr + cp * sy * sr, cp * cy],
    ]
    product = jnp.stack([jnp.stack(row, axis=-1) for row in rows], axis=-2)
    return jnp.asarray(FRONTAL) @ product


def matrix_to_angles(matrix: Array) -> Array:
    """Inverse of `angles_to_matrix`: degrees, pitch and roll in (-180, 180], |yaw| <= 90.

    At |yaw| = 90 only the combination of pitch and roll is determined; roll is then 0.
    """
    m = jnp.asarray(FRONTAL) @ matrix
    sine = jnp.clip(-m[..., 0, 2], -1.0, 1.0)
    gimbal = jnp.abs(sine) > 1.0 - 1e-6
    pitch = jnp.where(
        gimbal,
        jnp.arctan2(-m[..., 2, 1], m[..., 1, 1]),
        jnp.arctan2(m[..., 1, 2], m[..., 2, 2]),
    )
    roll = jnp.where(gimbal, 0.0, jnp.arctan2(m[..., 0, 1], m[..., 0, 0]))
    return jnp.rad2deg(jnp.stack([jnp.arcsin(sine), pitch, roll], axis=-1))


def head_rotation(rotvec: Array) -> Array:
    """Model-to-camera rotation (..., 3, 3) of `FaceParams.rotation` (..., 3)."""
    return rotvec_to_matrix(rotvec) @ jnp.asarray(FRONTAL)
