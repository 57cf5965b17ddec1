"""The gate of `pneumo promote`: who may take the champion's place."""

from pneumo.pipeline.release.gate.decide import judge_candidate
from pneumo.pipeline.release.gate.gate_verdict import Check, Figure, Verdict
from pneumo.pipeline.release.gate.requirements import Gate, read_gate

__all__ = ["Check", "Figure", "Gate", "Verdict", "judge_candidate", "read_gate"]
