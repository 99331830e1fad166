"""What a target allows: its recipes as points of a polytope."""
