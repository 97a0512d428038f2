"""A small face detector: where heads are in a picture, how large, and how far they are tilted."""
