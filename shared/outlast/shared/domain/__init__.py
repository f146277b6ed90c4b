"""The words of Outlast as values and pure functions. Imports the standard library only."""
