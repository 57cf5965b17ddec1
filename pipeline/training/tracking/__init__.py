"""Experiment tracking: one interface, with Weights & Biases, MLflow and TensorBoard behind it."""
