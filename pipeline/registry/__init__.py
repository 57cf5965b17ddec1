"""The registry of models, write side: promotion and rollback, in a folder or in a bucket."""

from pipeline.registry.changing import CHAMPION, Admission, check_alias, list_versions, promote, rollback
from pipeline.registry.finding import BUNDLE, current_bundle, find_bundle

__all__ = [
    "BUNDLE",
    "CHAMPION",
    "Admission",
    "check_alias",
    "current_bundle",
    "find_bundle",
    "list_versions",
    "promote",
    "rollback",
]
