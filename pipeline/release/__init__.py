"""From a bundle to a promotion: the gate and the registry's write side."""
