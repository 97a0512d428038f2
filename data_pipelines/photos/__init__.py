"""Annotated photographs as training data: squares, dense labels, shards, augmentation."""
