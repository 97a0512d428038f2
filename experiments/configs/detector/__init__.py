"""Configs of the detector."""
