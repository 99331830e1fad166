"""The Gaussian process on what the laws leave over."""
