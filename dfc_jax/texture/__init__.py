"""Textures over a face model's uv atlas: the atlas, and what a photograph shows of it."""
