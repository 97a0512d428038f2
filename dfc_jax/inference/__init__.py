"""From photographs to fitted faces. This module itself is light."""

MAX_RECROPS = 3
# The detectors by name, and the one that is taken if nobody says otherwise.
DETECTORS = ("dfc", "haar", "yunet", "none")
DEFAULT_DETECTOR = "haar"
# What those that need a file need.
MODELS = {"dfc": "weights of experiments.detector", "yunet": "a model file"}
