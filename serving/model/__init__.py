"""A model that is served: bundle, registry, predictor, calibration, out-of-distribution score."""
