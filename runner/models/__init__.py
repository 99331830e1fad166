"""What is trained: the ladder, the architecture, foreign checkpoints, the loss, memory."""
