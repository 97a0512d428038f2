"""Readers of annotated faces in files."""
