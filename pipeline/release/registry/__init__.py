"""The write side of the model registry: promotion and rollback, in a folder or in a bucket."""

from pneumo.pipeline.release.registry.resolve import current_bundle, find_bundle
from pneumo.pipeline.release.registry.write import CHAMPION, Admission, check_alias, promote, rollback

__all__ = ["CHAMPION", "Admission", "check_alias", "current_bundle", "find_bundle", "promote", "rollback"]
