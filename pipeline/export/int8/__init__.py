"""Quantisation of an exported float graph to 8-bit integers, accepted or refused on validation images."""

from pneumo.pipeline.export.int8.acceptance import AcceptanceLimits
from pneumo.pipeline.export.int8.quantization import Sample, quantize

__all__ = ["AcceptanceLimits", "Sample", "quantize"]
