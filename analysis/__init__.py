"""placeholder"""

if __name__ == "analysis":
    raise ImportError("import mixlaw.analysis, not analysis")
