"""Mixtures as parameters of any Optuna study."""
