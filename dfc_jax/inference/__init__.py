"""From photographs to fitted faces. This module itself is light."""

MAX_RECROPS = 3
# The detectors by name, and the one that is taken if nobody says otherwise.
DETECTORS = ("dfc", "haar", "yunet", "none")
DEFAULT_DETECTOR = "dfc"
# What `load` and the commands take for the segmentation if nobody says otherwise: "segmentation",
# the name of the package's own, once there is one (`dfc_jax.files.SEGMENTATION_FILE`).
DEFAULT_SEGMENTATION: str | None = None
# Those that take a file; one of them does not come with the package.
WITH_MODEL = ("dfc", "yunet")
YUNET_NEEDED = (
    "the detector yunet needs a model file, face_detection_yunet of OpenCV's model zoo; give"
    " --detector-model"
)
