"""Checkpoints to values."""
