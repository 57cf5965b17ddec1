"""Sources of an import: folders, tables, MedMNIST arrays and archives of these, as one list of labelled images."""

from pneumo.pipeline.data.sources.containers import Blob, Skipped, UnreadableError
from pneumo.pipeline.data.sources.layouts import Item
from pneumo.pipeline.data.sources.source import Source, open_source

__all__ = ["Blob", "Item", "Skipped", "Source", "UnreadableError", "open_source"]
