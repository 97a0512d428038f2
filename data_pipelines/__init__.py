"""Training data: rendered faces, labelled photographs, and where both come from."""
