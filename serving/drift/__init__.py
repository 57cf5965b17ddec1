"""Compare recent images with the model's reference, and measure live performance."""
