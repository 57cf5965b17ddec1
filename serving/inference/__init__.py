"""Inference: the service, micro-batches, model slots, load shedding, explanations, offline prediction."""
