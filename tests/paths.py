"""Where the repository and the real data are that some tests use."""

import os
from pathlib import Path

ROOT = Path(__file__).parents[1]
ASTRONAUT = ROOT / "examples" / "astronaut.jpg"
SHARED_DATA = Path(os.environ.get("DFC_SHARED_DATA", ROOT.parent / "shared" / "data"))
