"""How scores become answers: temperature, threshold and conformal limit, fitted on validation only."""

from pneumo.pipeline.decisions.calibration import conformal_limit, fit_temperature
from pneumo.pipeline.decisions.decision_rules import DEFAULT_LEVEL, DEFAULT_OUTLIER_QUANTILE, Rules
from pneumo.pipeline.decisions.fit import FILE, Decisions, decide, read, save
from pneumo.pipeline.decisions.policies import DEFAULT_POLICY, Cut, Policy, choose_threshold

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
