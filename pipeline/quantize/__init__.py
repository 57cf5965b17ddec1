"""A graph of 8-bit integers from an exported float one, judged on validation images before anyone may use it."""

from pipeline.quantize.judging import Limits
from pipeline.quantize.making import Sample, quantise

__all__ = ["Limits", "Sample", "quantise"]
