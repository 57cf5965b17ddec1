"""Synthetic chest radiographs, deterministic for a seed: for the demo, the tests and the drift simulation."""

from pneumo.pipeline.data.phantom.dataset import PhantomSummary, Recipe, write_phantoms
from pneumo.pipeline.data.phantom.radiograph import draw_radiograph
from pneumo.pipeline.data.phantom.scanner import Scanner

__all__ = ["PhantomSummary", "Recipe", "Scanner", "draw_radiograph", "write_phantoms"]
