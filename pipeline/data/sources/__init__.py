"""What can be imported: folders, tables, MedMNIST arrays and archives of these, as one list of labelled images."""

from pneumo.pipeline.data.sources.containers import Skipped, UnreadableError
from pneumo.pipeline.data.sources.layouts import Item
from pneumo.pipeline.data.sources.source import Blob, Source, open_source

__all__ = ["Blob", "Item", "Skipped", "Source", "UnreadableError", "open_source"]
