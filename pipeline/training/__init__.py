"""Train: one Ludwig run, one run folder."""

from pneumo.pipeline.training.run import SEED, complete, resume, train

__all__ = ["SEED", "complete", "resume", "train"]
