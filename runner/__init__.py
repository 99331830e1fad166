"""placeholder"""

if __name__ == "runner":
    raise ImportError("import mixlaw.runner, not runner")
