"""Where data comes from: the layouts of data sets by name, and TFDS."""
