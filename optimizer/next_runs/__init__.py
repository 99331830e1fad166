"""What to train next."""
