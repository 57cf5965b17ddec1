"""Train: one Ludwig run, one run folder."""

from pipeline.training.run import SEED, resume, train

__all__ = ["SEED", "resume", "train"]
