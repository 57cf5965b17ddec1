"""The case browser: every prediction of a run on one page, with its image."""
