"""Run folders with their records, provenance, and the progress of a training."""
