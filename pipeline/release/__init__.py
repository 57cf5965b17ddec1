"""Promotion of bundles: the gate, and the write side of the registry."""
