"""Shortcuts: how well the class of an image is told without anatomy, which a network would learn in its place.

Four kinds of numbers are looked at, one apart from the other: the ten descriptors, the original file, border and
corners, and marks. An import measures them from the images that it has decoded anyway and keeps the result in
`dataset.json`, so that the report of every run and every model card quote it, training does no work twice, and the
folder of a data set is never written to later (DVC would call it changed). `pneumo data check` measures anew.
"""

from pneumo.pipeline.data.shortcuts.measurement import LabelledTraits, measure_shortcuts
from pneumo.pipeline.data.shortcuts.shortcut_report import EXPLANATION, Shortcut, ShortcutReport, describe_shortcuts
from pneumo.pipeline.data.shortcuts.traits import Traits, describe_traits, is_sampled

__all__ = [
    "EXPLANATION",
    "LabelledTraits",
    "Shortcut",
    "ShortcutReport",
    "Traits",
    "describe_shortcuts",
    "describe_traits",
    "is_sampled",
    "measure_shortcuts",
]
