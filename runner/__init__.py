"""Recipe in, Record out: corpora, token shards, exact mixing, the segment tree, training, evaluation, executors."""

if __name__ == "runner":
    raise ImportError("import mixlaw.runner, not runner")
