"""The page at `/drift`: what the prediction log says of a model, for people."""
