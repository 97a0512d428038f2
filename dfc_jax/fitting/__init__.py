"""Fitting the face model: a general Levenberg-Marquardt solver and what is built on it."""

from dfc_jax.fitting.fit import DEFAULT, N_IDENTITY, PAPER, FitResult, FitSettings, fit
from dfc_jax.fitting.landmarks import (
    LandmarkSettings,
    fit_landmarks,
    project_landmarks,
    visible_landmarks,
)
from dfc_jax.fitting.levenberg_marquardt import LMHistory, LMResult, Status, levenberg_marquardt

__all__ = [
    "DEFAULT",
    "N_IDENTITY",
    "PAPER",
    "FitResult",
    "FitSettings",
    "LMHistory",
    "LMResult",
    "LandmarkSettings",
    "Status",
    "fit",
    "fit_landmarks",
    "levenberg_marquardt",
    "project_landmarks",
    "visible_landmarks",
]
