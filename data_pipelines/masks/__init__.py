"""Squares of which it is known where the face is, and crops of them, for the segmentation."""
