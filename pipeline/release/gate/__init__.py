"""The gate of `pneumo promote`: requirements that a challenger must meet to become champion."""

from pneumo.pipeline.release.gate.decide import judge_candidate
from pneumo.pipeline.release.gate.gate_verdict import Verdict
from pneumo.pipeline.release.gate.requirements import Gate, read_gate

__all__ = ["Gate", "Verdict", "judge_candidate", "read_gate"]
