"""Parts of networks, and files of their weights."""
