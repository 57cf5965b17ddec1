"""The prediction log: one row an image, never the image."""
