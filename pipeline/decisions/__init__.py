"""How scores become answers: temperature, threshold and conformal limit, fitted on validation only."""

from pipeline.decisions.calibration import conformal_limit, fit_temperature
from pipeline.decisions.fitting import (
    FILE,
    Decisions,
    decide,
    read,
    save,
)
from pipeline.decisions.policies import DEFAULT_POLICY, Cut, Policy, choose_threshold
from pipeline.decisions.rules import DEFAULT_LEVEL, DEFAULT_OUTLIER_QUANTILE, Rules

__all__ = [
    "DEFAULT_LEVEL",
    "DEFAULT_OUTLIER_QUANTILE",
    "DEFAULT_POLICY",
    "FILE",
    "Cut",
    "Decisions",
    "Policy",
    "Rules",
    "choose_threshold",
    "conformal_limit",
    "decide",
    "fit_temperature",
    "read",
    "save",
]
