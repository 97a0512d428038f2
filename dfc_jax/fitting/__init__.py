"""Fitting the face model: a general Levenberg-Marquardt solver and what is built on it."""

from dfc_jax.fitting.fit import DEFAULT, N_IDENTITY, PAPER, FitResult, FitSettings, fit
from dfc_jax.fitting.halves import FRONT, PROFILE, HalfSettings, fit_half, half_landmarks
from dfc_jax.fitting.landmarks import (
    LandmarkSettings,
    fit_landmarks,
    project_landmarks,
    visible_landmarks,
)
from dfc_jax.fitting.levenberg_marquardt import LMHistory, LMResult, Status, levenberg_marquardt

__all__ = [
    "DEFAULT",
    "FRONT",
    "N_IDENTITY",
    "PAPER",
    "PROFILE",
    "FitResult",
    "FitSettings",
    "HalfSettings",
    "LMHistory",
    "LMResult",
    "LandmarkSettings",
    "Status",
    "fit",
    "fit_half",
    "fit_landmarks",
    "half_landmarks",
    "levenberg_marquardt",
    "project_landmarks",
    "visible_landmarks",
]
