"""Rotations, sampling and fields in pure JAX."""
