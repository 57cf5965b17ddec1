"""Drift checks of the command line, and a simulation of the smallest shift that a check notices."""
