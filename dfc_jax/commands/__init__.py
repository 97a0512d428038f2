"""What `dfc` does, one module a command: its arguments in `add`, its work in `run`.

JAX and everything on it are imported inside `run`, so that help and mistakes answer at once.
"""
