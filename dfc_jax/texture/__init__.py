"""The texture atlas, and what a photograph shows of it."""
