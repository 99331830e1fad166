"""Which worker trains what, and where."""
