"""How scores become answers: temperature, threshold and conformal limit, fitted on validation only."""

from pneumo.pipeline.decisions.calibration import fit_conformal_limit, fit_temperature
from pneumo.pipeline.decisions.decision_rules import DEFAULT_LEVEL, DEFAULT_OUTLIER_QUANTILE, DecisionRules
from pneumo.pipeline.decisions.fit import FILE, Decisions, fit_decisions, read_decisions, save_decisions
from pneumo.pipeline.decisions.policies import DEFAULT_POLICY, Cut, Policy, choose_threshold

__all__ = [
    "DEFAULT_LEVEL",
    "DEFAULT_OUTLIER_QUANTILE",
    "DEFAULT_POLICY",
    "FILE",
    "Cut",
    "DecisionRules",
    "Decisions",
    "Policy",
    "choose_threshold",
    "fit_conformal_limit",
    "fit_decisions",
    "fit_temperature",
    "read_decisions",
    "save_decisions",
]
