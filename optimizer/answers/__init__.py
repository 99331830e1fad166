"""What is answered: proposals, comparisons, fronts, verification."""
