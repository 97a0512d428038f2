"""Rendered faces with exact labels, and what they are put together from."""
