"""Synthetic chest radiographs, deterministic for a seed: for the demo, the tests and the drift simulation."""

from pneumo.pipeline.data.phantom.dataset import PhantomSummary, write
from pneumo.pipeline.data.phantom.radiograph import draw
from pneumo.pipeline.data.phantom.scanner import Scanner

__all__ = ["PhantomSummary", "Scanner", "draw", "write"]
