"""Scores of flow, masks and landmarks, and how an aligner is scored on photographs."""
