"""Claims runs and executes them, one attempt at a time."""
