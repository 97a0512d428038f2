"""Configs of the segmentation."""
