"""Cross-validate a config by patient: one run per fold, pooled out-of-fold predictions, one bundle of the folds."""
