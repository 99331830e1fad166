"""Tasks besides the items of a data folder: programs that run, the evaluation harness, answers judged by a model."""
