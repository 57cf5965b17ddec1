"""The registry of models, write side: promotion and rollback, in a folder or in a bucket."""

from pneumo.pipeline.release.registry.resolve import BUNDLE, current_bundle, find_bundle
from pneumo.pipeline.release.registry.write import (
    CHAMPION,
    Admission,
    check_alias,
    list_versions,
    promote,
    rollback,
)

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
