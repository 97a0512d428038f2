"""Metrics, and the protocols that apply them to annotated photographs."""
