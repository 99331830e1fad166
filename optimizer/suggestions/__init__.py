"""The next runs: what they would teach about the best recipe, and what they cost."""
