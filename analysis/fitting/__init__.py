"""The fitting engine, pooling over tasks, estimates."""
