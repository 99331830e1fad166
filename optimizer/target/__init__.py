"""What is asked for: target, limits, recipes as points, history."""
