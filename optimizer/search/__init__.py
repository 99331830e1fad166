"""How the best recipe is found."""
