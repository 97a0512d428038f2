"""Annotated photographs: dense labels, turned copies, random crops."""
