"""A graph of 8-bit integers from an exported float one, judged on validation images before anyone may use it."""

from pneumo.pipeline.export.int8.acceptance import AcceptanceLimits
from pneumo.pipeline.export.int8.quantization import Sample, quantize

__all__ = ["AcceptanceLimits", "Sample", "quantize"]
