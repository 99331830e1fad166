"""Fitting: records in, surfaces out."""

if __name__ == "analysis":
    raise ImportError("import mixlaw.analysis, not analysis")
