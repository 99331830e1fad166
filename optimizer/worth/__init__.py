"""What a recipe is worth: gains over baselines in every world that the data allow."""
