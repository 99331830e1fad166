"""Records to designs: what a size and a repeat are, coordinates, observations."""
