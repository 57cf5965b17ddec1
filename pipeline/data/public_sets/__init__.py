"""Download public data sets: checked, resumed where a connection broke, with licence and source told."""

from pneumo.pipeline.data.public_sets.catalogue import SETS, PublicSet, find
from pneumo.pipeline.data.public_sets.download import Fetched, fetch

__all__ = ["SETS", "Fetched", "PublicSet", "fetch", "find"]
