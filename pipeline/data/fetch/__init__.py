"""Download public data sets: checked, resumed where a connection broke, with licence and source told."""

from pipeline.data.fetch.downloading import Fetched, fetch
from pipeline.data.fetch.sets import SETS, PublicSet, find

__all__ = ["SETS", "Fetched", "PublicSet", "fetch", "find"]
