"""Metrics of changed images and subgroups at the end of an epoch, by which a training chooses its best one."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from pneumo.pipeline.config.selection_metric import STRESS_MEAN, STRESS_WORST, WORST_GROUP, read_weights
from pneumo.pipeline.data.manifest import Dataset, Row, Split
from pneumo.pipeline.decisions import Decisions
from pneumo.pipeline.decisions.outlier_limit import sample_rows
from pneumo.pipeline.evaluation.cases import Cases, Scores
from pneumo.pipeline.evaluation.classification_metrics import rank_scores
from pneumo.pipeline.evaluation.results import Bootstrap
from pneumo.pipeline.evaluation.stress.shifts import Use, list_shifts
from pneumo.pipeline.evaluation.stress.stored_images import StoredImages
from pneumo.pipeline.evaluation.subgroups import measure_subgroups
from pneumo.pipeline.runs.run import RunInfo
from pneumo.serving.contracts.arrays import Float64
from pneumo.serving.contracts.errors import InputError
from pneumo.serving.images.preparation import Preparation
from pneumo.serving.images.types import Gray

IMAGES, GROUP_IMAGES = 100, 400
"""Most validation images that are changed, each in ten ways, and most for subgroups; half of them of each class."""

CHANGED_IMAGES = IMAGES * len(list_shifts(Use.SELECTION))
"""Model inputs that an epoch predicts for a metric under change."""

_PLAIN = Decisions(
    temperature=1, threshold=0.5, policy="", conformal_level=0.9, conformal_limit=[1.0], fitted_on="nothing", images=0
)

Predict = Callable[[Sequence[Gray]], Float64]
"""Return the logit [N] of the positive class of model inputs, uint8 [H, W, C]."""


@dataclass(frozen=True)
class EpochMetric:
    """A metric that Ludwig does not know, with its images, which are prepared once.

    Attributes:
        name: As in the config.
        weights: Weight of each metric in it.
        positive: Images of the positive class among those that are changed, [N].
        changed: Model inputs under each change, [N] each; empty if no such metric is asked for.
        grouped: Rows for subgroups, with their model inputs.
    """

    name: str
    weights: Mapping[str, float]
    info: RunInfo
    positive: Sequence[bool]
    changed: Sequence[Sequence[Gray]]
    grouped: tuple[Sequence[Row], Sequence[Gray]]

    @classmethod
    def prepare(
        cls, name: str, dataset: Dataset, info: RunInfo, read: Callable[[Sequence[Row]], Sequence[Gray]] | None = None
    ) -> "EpochMetric":
        """Prepare the images of a binary label's metric; `read` returns rows as stored, else the data set is read.

        Raises:
            InputError: The metric is about subgroups, and the data set has none that are large enough.
        """
        weights, rows = read_weights(name), dataset.select(Split.VALIDATION)
        classes = [[row for row in rows if row.label == label] for label in info.classes]

        def load(count: int) -> StoredImages:
            some = [row for own in classes for row in sample_rows(own, count // 2)]
            if read is None:
                return StoredImages.read(dataset, some, info)
            return StoredImages(some, read(some), Preparation.model_validate(info.preparation), info.positive)

        chosen = load(IMAGES if {STRESS_MEAN, STRESS_WORST} & weights.keys() else 0)
        grouped = load(GROUP_IMAGES if WORST_GROUP in weights else 0)
        made = cls(
            name=name,
            weights=weights,
            info=info,
            positive=[row.label == info.positive for row in chosen.rows],
            changed=[chosen.change(shift) for shift in list_shifts(Use.SELECTION)] if chosen.rows else [],
            grouped=(grouped.rows, grouped.change(None)),
        )
        if grouped.rows:
            made._measure_worst_group(np.zeros(len(grouped.rows)))
        return made

    def measure(self, latest: Mapping[str, float], predict: Predict) -> dict[str, float]:
        """Return the metric and its parts that are not in `latest`, Ludwig's metrics of the validation split."""
        values: dict[str, float] = {}
        if self.changed:
            aurocs = [self._measure_auroc(predict(images)) for images in self.changed]
            values |= {STRESS_MEAN: float(np.mean(aurocs)), STRESS_WORST: min(aurocs)}
        if self.grouped[0]:
            values[WORST_GROUP] = self._measure_worst_group(predict(self.grouped[1]))
        known = {**latest, **values}
        return values | {self.name: sum(weight * known[part] for part, weight in self.weights.items())}

    def _measure_auroc(self, logits: Float64) -> float:
        images = len(self.positive)
        truth, each = np.array(self.positive, dtype=np.bool_), np.arange(images)
        return float(rank_scores(logits, truth, np.ones((1, images), dtype=np.int64), each)[0][0])

    def _measure_worst_group(self, logits: Float64) -> float:
        rows, classes = self.grouped[0], self.info.classes
        column = classes.index(str(self.info.positive))
        both = np.zeros((len(rows), 2))
        both[:, column] = (logits - logits.mean()) / (logits.std() or 1.0)  # ranks count, and sure logits would tie
        cases = Cases.make(Scores.from_rows(rows, both, classes), _PLAIN, column)
        _, worst = measure_subgroups(cases, classes, Bootstrap(resamples=0))
        if worst is None or worst.auroc.value is None:
            why = worst.auroc.reason if worst else "the data set names none (`pneumo data import --groups`)"
            raise InputError(f"trainer.validation_metric: {WORST_GROUP} needs subgroups of validation images: {why}")
        return worst.auroc.value
