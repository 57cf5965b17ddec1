"""Decisions that turn scores into answers: temperature, threshold and conformal limit, fitted on validation only."""

from pneumo.pipeline.decisions.fit import FILE, Decisions, fit_decisions, read_decisions, save_decisions
from pneumo.pipeline.decisions.policies import DecisionRules, Policy

__all__ = ["FILE", "DecisionRules", "Decisions", "Policy", "fit_decisions", "read_decisions", "save_decisions"]
