"""Whether the images that come still look like those that the model knows."""
