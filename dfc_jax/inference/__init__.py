"""From photographs to fitted faces. This module itself is light."""

MAX_RECROPS = 3
