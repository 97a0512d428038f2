"""Fitting the face model: a general Levenberg-Marquardt solver and what is built on it."""

from dfc_jax.fitting.fit import DEFAULT, N_IDENTITY, PAPER, FitResult, FitSettings, fit
from dfc_jax.fitting.landmarks import (
    LandmarkSettings,
    fit_landmarks,
    project_landmarks,
    visible_landmarks,
)
from dfc_jax.fitting.levenberg_marquardt import LMHistory, LMResult, Status, levenberg_marquardt
from dfc_jax.fitting.profiles import ProfileSettings, fit_profile, profile_landmarks

__all__ = [
    "DEFAULT",
    "N_IDENTITY",
    "PAPER",
    "FitResult",
    "FitSettings",
    "LMHistory",
    "LMResult",
    "LandmarkSettings",
    "ProfileSettings",
    "Status",
    "fit",
    "fit_landmarks",
    "fit_profile",
    "levenberg_marquardt",
    "profile_landmarks",
    "project_landmarks",
    "visible_landmarks",
]
