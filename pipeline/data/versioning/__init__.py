"""Versioned data: push what DVC tracks to a remote and pull it back, with errors of one line."""

from pneumo.pipeline.data.versioning.transfers import TRACKED, Transfer, pull, push

__all__ = ["TRACKED", "Transfer", "pull", "push"]
