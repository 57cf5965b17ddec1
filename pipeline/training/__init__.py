"""Train: one Ludwig run, one run folder."""

from pipeline.training.run import resume, train

__all__ = ["resume", "train"]
