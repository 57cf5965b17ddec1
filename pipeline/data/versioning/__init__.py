"""Data under version: what DVC tracks, sent to and fetched from a remote, with errors in one line."""

from pneumo.pipeline.data.versioning.transfers import TRACKED, Transfer, pull, push

__all__ = ["TRACKED", "Transfer", "pull", "push"]
