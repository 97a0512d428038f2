"""One package a paper; they do not import each other."""
