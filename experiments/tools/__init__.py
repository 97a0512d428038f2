"""Programs that make, calibrate and check what the package and the trainings use."""
