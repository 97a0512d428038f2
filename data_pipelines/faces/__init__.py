"""Rendered faces: the generator of synthetic pairs, one module a factor of variation."""
