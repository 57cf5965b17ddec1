"""Folds of a cross-validation: a data set as one training of it sees it.

Training and validation images are divided into folds. Patients and identical bytes stay together, and each fold has
about the same share of each class. The data set's own test split takes no part.
"""

from collections import Counter
from dataclasses import replace

from pneumo.pipeline.data.manifest import MANIFEST, Dataset, Row, Split
from pneumo.pipeline.data.splits import Sample, carve_validation, divide_images
from pneumo.pipeline.runs.run import Fold
from pneumo.serving.contracts.errors import InputError

VALIDATION_SHARE = 0.15
"""Share of the images outside a fold that choose the best epoch and the decisions."""


def apply_fold(dataset: Dataset, fold: Fold, *, ensemble: bool = False) -> Dataset:
    """Return a data set whose test split is a fold; the others are training, with a validation split cut by patient.

    Images of the data set's own test split are left out. The same fold of the same data set is always the same. For an
    `ensemble` of all folds, the fold is the validation split, all others are training, and the own test split stays.

    Raises:
        InputError: A class has too few patients for so many folds.
    """
    rows = [row for row in dataset.rows if row.split is not Split.TEST]
    samples = [Sample(row.image, row.label, row.patient, row.sha256) for row in rows]
    shares = dict.fromkeys(range(1, fold.folds + 1), 1 / fold.folds)
    numbers = divide_images(samples, shares, seed=fold.seed)
    others = [sample for sample in samples if numbers[sample.name] != fold.number]
    if ensemble:
        parts = dict.fromkeys(shares, Split.TRAIN) | {fold.number: Split.VALIDATION}
        own = dataset.select(Split.TEST)
        return replace(dataset, rows=(*(replace(row, split=parts[numbers[row.image]]) for row in rows), *own))
    validation = carve_validation(others, VALIDATION_SHARE, seed=fold.seed)

    def choose_split(row: Row) -> Split:
        if numbers[row.image] == fold.number:
            return Split.TEST
        return Split.VALIDATION if row.image in validation else Split.TRAIN

    divided = tuple(replace(row, split=choose_split(row)) for row in rows)
    by_split = {split.name.lower(): [row for row in divided if row.split is split] for split in Split}
    counts = {name: Counter(row.label for row in some) for name, some in by_split.items()}
    for label in dataset.info.classes:
        for name in counts:
            if not counts[name][label]:
                patients = len({row.patient for row in rows if row.label == label})
                raise InputError(
                    f"{dataset.folder / MANIFEST}: fold {fold.number} of {fold.folds} would have no {label} image for "
                    f"{name}: outside the test split {label} has {patients} patients; give fewer --folds"
                )
    info = dataset.info.model_copy(
        update={
            "counts": {name: dict(sorted(some.items())) for name, some in counts.items()},
            "patients": {name: len({row.patient for row in some}) for name, some in by_split.items()},
        }
    )
    return replace(dataset, rows=divided, info=info)
