"""Download public data sets: checked by digest, resumed after a broken connection, with licence and source."""

from pneumo.pipeline.data.public_sets.catalogue import SETS, PublicSet, find_public_set
from pneumo.pipeline.data.public_sets.download import Fetched, download_public_set, recognise_population

__all__ = ["SETS", "Fetched", "PublicSet", "download_public_set", "find_public_set", "recognise_population"]
