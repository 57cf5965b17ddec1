"""Times of a training, read from outside: Ludwig's trainer has no clock of its own for steps."""

import dataclasses
import functools
import time
from collections.abc import Callable
from typing import Any


@dataclasses.dataclass
class Measured:
    """One training.

    Attributes:
        images: Shown in steps, all but the first.
        steps: Seconds of those steps.
        shown: Images of whole epochs.
        epochs: Seconds of whole epochs: steps, reading, evaluation, checkpoints.
        evaluation: Seconds of evaluation in them.
        before: Seconds from the call to the first epoch.
    """

    images: int = 0
    steps: float = 0.0
    shown: int = 0
    epochs: float = 0.0
    evaluation: float = 0.0
    before: float = 0.0

    @property
    def rate(self) -> float:
        """Images a second in steps."""
        return self.images / self.steps

    @property
    def whole_rate(self) -> float:
        """Images a second in whole epochs."""
        return self.shown / self.epochs


class Clock:
    """Wall time, or the processor time of this process, which other people's work disturbs less."""

    read = staticmethod(time.perf_counter)


class Meter:
    """Times Ludwig's trainer from outside: batches and steps, evaluation rounds, checkpoints."""

    def __init__(self) -> None:
        from ludwig.trainers.trainer import Trainer
        from ludwig.utils.checkpoint_utils import CheckpointManager

        self.reset()
        for name in ("train_step", "_train_loop", "run_evaluation", "_has_nan_or_inf_weights"):
            setattr(Trainer, name, self.watched(getattr(Trainer, name), getattr(self, name.strip("_"))))
        CheckpointManager.save = self.watched(CheckpointManager.save, self.save)  # the latest and the best

    def reset(self) -> None:
        """Forget the training before."""
        self.result = Measured()
        self.first_step = self.first_epoch = self.end = 0.0
        self.aside: list[tuple[float, float]] = []

    @staticmethod
    def watched(method: Callable[..., Any], note: Callable[..., None]) -> Callable[..., Any]:
        @functools.wraps(method)
        def watching(*arguments: Any, **options: Any) -> Any:
            began = Clock.read()
            result = method(*arguments, **options)
            note(began, Clock.read(), *arguments[1:])
            return result

        return watching

    def train_step(self, began: float, ended: float, inputs: Any, targets: dict[str, Any], *_: Any) -> None:
        images = len(next(iter(targets.values())))
        self.result.shown += images
        if self.first_step:
            self.result.images += images
        else:
            self.first_step = ended

    def run_evaluation(self, began: float, ended: float, *_: Any) -> None:
        self.result.evaluation += ended - began
        self.aside.append((began, ended))

    has_nan_or_inf_weights = run_evaluation  # Ludwig looks once a round

    def save(self, began: float, ended: float, *_: Any) -> None:
        self.aside.append((began, ended))
        self.end = ended

    def train_loop(self, began: float, ended: float, *_: Any) -> None:
        """An epoch: what was not evaluation or a checkpoint is steps; Ludwig makes another checkpoint after it."""
        self.first_epoch = self.first_epoch or began
        self.end = ended
        aside = sum(end - start for start, end in self.aside if start >= began)
        self.result.steps += ended - max(began, self.first_step) - aside

    def measure(self, train: Callable[[], Any]) -> Measured:
        self.reset()
        began = Clock.read()
        self.returned = train()
        self.result.before = self.first_epoch - began
        self.result.epochs = self.end - self.first_epoch
        return self.result
