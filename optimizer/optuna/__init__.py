"""Mixtures inside an Optuna study."""
