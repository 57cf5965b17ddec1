"""How small a shift the drift check sees, on real images that are changed by simulation."""
