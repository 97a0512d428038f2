"""Pictures with many faces, for the training of a detector."""
