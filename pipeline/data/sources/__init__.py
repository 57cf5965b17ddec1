"""Sources of an import: folders, tables, MedMNIST arrays and archives of these, as one list of labelled images."""

from pneumo.pipeline.data.sources.containers import Blob, Skipped, UnreadableError
from pneumo.pipeline.data.sources.items import Item
from pneumo.pipeline.data.sources.source import Source, open_source
from pneumo.pipeline.data.sources.source_options import SourceOptions

__all__ = ["Blob", "Item", "Skipped", "Source", "SourceOptions", "UnreadableError", "open_source"]
