"""What may be wrong with an Outlast and what mends it: facts are asked for in one place, judged in the others."""
