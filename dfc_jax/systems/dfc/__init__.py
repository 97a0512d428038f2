"""Dense facial correspondences (arXiv 1709.00536): template, labels, networks, loss."""
