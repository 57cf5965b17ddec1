"""Synthetic chest radiographs, deterministic for a seed: for the demo, the tests and the drift simulation."""

from pipeline.data.phantom.dataset import PhantomSummary, write
from pipeline.data.phantom.radiograph import draw
from pipeline.data.phantom.scanner import Scanner

__all__ = ["PhantomSummary", "Scanner", "draw", "write"]
