"""The parts of `tools/ablate.py`: the grid, its runs, their results, and the table that compares them."""
