"""The best recipe for a target, how sure that is, and what was measured since."""
