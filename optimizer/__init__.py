"""Surfaces in, recipes out: targets, baselines, proposals, their verification, and the next runs."""

if __name__ == "optimizer":
    raise ImportError("import mixlaw.optimizer, not optimizer")
