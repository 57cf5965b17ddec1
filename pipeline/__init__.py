"""Make a model: data, configuration, training, evaluation, export, registry. Heavy imports stay inside functions."""
