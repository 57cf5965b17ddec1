"""Run a bundle: read an image, predict, serve. Imports nothing of `pipeline`, torch, Ludwig or Ray."""
