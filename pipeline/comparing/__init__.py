"""Lists of runs, and comparison of two runs."""
