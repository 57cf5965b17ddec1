"""Data-parallel training: the parts that subclass Ludwig's trainer and backend."""
