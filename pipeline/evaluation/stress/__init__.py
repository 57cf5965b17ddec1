"""The stress test: metrics under simulated changes of the images."""
