"""The 21 landmarks of AFLW: their names and order, and their places among the 68 of iBUG.

AFLW (Koestinger, Wohlhart, Roth and Bischof, "Annotated Facial Landmarks in the Wild", ICCV
Workshops 2011) calls left what lies left in the *picture* of a frontal face, which is the subject's
right. Its order is that of `feature_id` in its database.

Each landmark but the ears is the mean of iBUG points, as in the evaluation of 3DDFA (Guo et al.,
"Towards Fast, Accurate and Stable 3D Dense Face Alignment", ECCV 2020): the centre of an eye is
that of its six points, the centre of the mouth that of the eight points of the inner lips. 3DDFA
takes the jaw points 2 and 14 for the ears; AFLW's ears are no points of iBUG, and are left out.
"""

import numpy as np

N_LANDMARKS21 = 21
# In AFLW's order, each with the iBUG points whose mean it is.
POINTS68: dict[str, tuple[int, ...]] = {
    "LeftBrowLeftCorner": (17,),
    "LeftBrowCenter": (19,),
    "LeftBrowRightCorner": (21,),
    "RightBrowLeftCorner": (22,),
    "RightBrowCenter": (24,),
    "RightBrowRightCorner": (26,),
    "LeftEyeLeftCorner": (36,),
    "LeftEyeCenter": (36, 37, 38, 39, 40, 41),
    "LeftEyeRightCorner": (39,),
    "RightEyeLeftCorner": (42,),
    "RightEyeCenter": (42, 43, 44, 45, 46, 47),
    "RightEyeRightCorner": (45,),
    "LeftEar": (),
    "NoseLeft": (31,),
    "NoseCenter": (30,),
    "NoseRight": (35,),
    "RightEar": (),
    "MouthLeftCorner": (48,),
    "MouthCenter": (60, 61, 62, 63, 64, 65, 66, 67),
    "MouthRightCorner": (54,),
    "ChinCenter": (8,),
}
NAMES21 = tuple(POINTS68)


def landmarks21(points68: np.ndarray) -> np.ndarray:
    """AFLW's landmarks (..., 21, 2) of iBUG points (..., 68, 2), in the same pixels.

    The two ears are NaN, and so is the mean of points of which one is NaN.
    """
    points = np.full((*points68.shape[:-2], N_LANDMARKS21, 2), np.nan)
    for number, of in enumerate(POINTS68.values()):
        if of:
            points[..., number, :] = points68[..., list(of), :].mean(axis=-2)
    return points
