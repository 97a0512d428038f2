"""Training data: rendered faces, photographs with labels, and where they come from."""
