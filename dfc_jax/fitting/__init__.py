"""Fitting the face model: a general Levenberg-Marquardt solver and what is built on it."""

from dfc_jax.fitting.fit import FitResult, fit
from dfc_jax.fitting.implicit import implicit_minimum
from dfc_jax.fitting.kernels import Robust, cauchy, geman_mcclure, huber
from dfc_jax.fitting.landmarks import (
    LandmarkSettings,
    fit_both,
    fit_landmarks,
    project_landmarks,
)
from dfc_jax.fitting.levenberg_marquardt import LMHistory, LMResult, levenberg_marquardt
from dfc_jax.fitting.linearized import (
    ArrowEquations,
    ArrowJacobian,
    Linearized,
    NormalEquations,
    StackedQR,
)
from dfc_jax.fitting.profiles import ProfileSettings, fit_profile, profile_landmarks
from dfc_jax.fitting.settings import DEFAULT, N_IDENTITY, PAPER, FitSettings
from dfc_jax.fitting.silhouette import visible_landmarks
from dfc_jax.fitting.status import Status
from dfc_jax.fitting.uncertainty import Uncertainty, uncertainty
from dfc_jax.fitting.views import fit_views

__all__ = [
    "DEFAULT",
    "N_IDENTITY",
    "PAPER",
    "ArrowEquations",
    "ArrowJacobian",
    "FitResult",
    "FitSettings",
    "LMHistory",
    "LMResult",
    "LandmarkSettings",
    "Linearized",
    "NormalEquations",
    "ProfileSettings",
    "Robust",
    "StackedQR",
    "Status",
    "Uncertainty",
    "cauchy",
    "fit",
    "fit_both",
    "fit_landmarks",
    "fit_profile",
    "fit_views",
    "geman_mcclure",
    "huber",
    "implicit_minimum",
    "levenberg_marquardt",
    "profile_landmarks",
    "project_landmarks",
    "uncertainty",
    "visible_landmarks",
]
