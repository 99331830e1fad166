"""placeholder"""

if __name__ == "optimizer":
    raise ImportError("import mixlaw.optimizer, not optimizer")
