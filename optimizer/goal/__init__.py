"""What counts: goal, baselines, gains, evidence."""
