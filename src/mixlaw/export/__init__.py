"""A recipe as mixture configuration for other trainers: a file per phase, shares in the trainer's unit."""
