"""The gate of `pneumo promote`: who may take the champion's place."""

from pipeline.gate.judging import judge
from pipeline.gate.limits import Gate, read_gate
from pipeline.gate.verdict import Check, Figure, Verdict

__all__ = ["Check", "Figure", "Gate", "Verdict", "judge", "read_gate"]
