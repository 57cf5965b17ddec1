"""Lists of runs, and two runs side by side."""
