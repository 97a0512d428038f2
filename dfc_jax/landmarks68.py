"""The 68 landmarks of the iBUG annotation (300W): how many, which part of the face, and mirrors."""

import numpy as np

N_LANDMARKS = 68
N_JAW = 17
JAW, INNER = slice(0, N_JAW), slice(N_JAW, N_LANDMARKS)
BROWS = slice(17, 27)
EYES, MOUTH, INNER_LIPS = slice(36, 48), slice(48, N_LANDMARKS), slice(60, N_LANDMARKS)
# The points that say how far eyes and mouth are open.
OPENINGS = np.r_[EYES, INNER_LIPS]
# (68,) which way the lid or lip lies that ends at a point, in the y of an upright image: above is
# -1, below 1; 0 for points on no such edge.
OUTWARDS = np.zeros(N_LANDMARKS, np.float32)
OUTWARDS[[37, 38, 43, 44, 61, 62, 63]] = -1.0
OUTWARDS[[40, 41, 46, 47, 65, 66, 67]] = 1.0
# The landmark that each one becomes in a mirror image, (68,).
MIRROR = np.concatenate(
    [
        np.arange(16, -1, -1),  # jaw
        np.arange(26, 16, -1),  # brows
        np.arange(27, 31),  # bridge of the nose
        np.arange(35, 30, -1),
        [45, 44, 43, 42, 47, 46, 39, 38, 37, 36, 41, 40],  # eyes
        [54, 53, 52, 51, 50, 49, 48, 59, 58, 57, 56, 55],  # outer lips
        [64, 63, 62, 61, 60, 67, 66, 65],  # inner lips
    ]
)
# Whether each is of the subject's right half, or of the left, (68,); others lie in the middle.
_OF_LEFT = [*range(9, 17), *range(22, 27), 34, 35, *range(42, 48), 52, 53, 54, 55, 56, 63, 64, 65]
LEFT = np.isin(np.arange(N_LANDMARKS), _OF_LEFT)
RIGHT = LEFT[MIRROR]
