"""The linear face model, its file, and readers of its sources."""
