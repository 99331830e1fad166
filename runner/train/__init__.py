"""Segments to checkpoints."""
