"""Readers of annotated faces, light enough for an installation that only evaluates."""
