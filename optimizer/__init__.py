"""Surfaces in, recipes out: constraints, baselines, proposals, their verification, and simulated worlds."""

if __name__ == "optimizer":
    raise ImportError("import mixlaw.optimizer, not optimizer")
