"""Why a solver, or a fit, stopped."""

import enum


class Status(enum.IntEnum):
    """Why `levenberg_marquardt`, or a fit, stopped.

    MAX_STEPS: all steps were used; CONVERGED_FTOL, _XTOL, _GTOL: the named tolerance was met;
    STALLED: no damping gave a lower cost, or a tolerance was met where columns of the Jacobian are
    parallel but for rounding, which may hide the way down; NON_FINITE: the residual at the start,
    or the Jacobian at an accepted point, is not finite.

    Of a fit alone, whose points do not determine a face: NO_POINTS, none can be used; FEW_POINTS,
    fewer than four can; ONE_POINT, all are one point of the face, or are seen in one place;
    COLLINEAR, they lie on a line, on the face or in the picture.
    """

    MAX_STEPS = 0
    CONVERGED_FTOL = 1
    CONVERGED_XTOL = 2
    CONVERGED_GTOL = 3
    STALLED = 4
    NON_FINITE = 5
    NO_POINTS = 6
    FEW_POINTS = 7
    ONE_POINT = 8
    COLLINEAR = 9
