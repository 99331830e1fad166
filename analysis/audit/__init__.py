"""How far a fit can be trusted: folds, calibration, peers, stacking, readiness."""
