"""Sweep: a search space in Ludwig's language, searched with Ray Tune, each trial a run like any other."""
