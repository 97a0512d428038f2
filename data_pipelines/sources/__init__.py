"""Where annotated faces come from: layouts of folders, and TFDS."""
