"""A served model: bundle, registry, predictor, calibration, out-of-distribution score, heat map."""
