"""Worlds of known truth and replays of finished tables, for tests and benchmarks."""
