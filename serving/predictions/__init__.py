"""The prediction log: one row of numbers per image, never the image."""
