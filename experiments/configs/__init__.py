"""Training configurations; each file has one `get_config()`."""
