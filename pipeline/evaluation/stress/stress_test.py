"""How a run holds up when its validation images are changed as another scanner, operator or export would change them.

A validation split of the same source hardly tells good models from brittle ones: nearly all reach the same AUROC on it.
The test images stay unseen.
"""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from pneumo.pipeline import decisions as deciding
from pneumo.pipeline.data import manifest
from pneumo.pipeline.data.manifest import Dataset, Row, Split
from pneumo.pipeline.decisions.outlier_limit import OutlierLimit
from pneumo.pipeline.evaluation.bootstrap import estimate_metrics
from pneumo.pipeline.evaluation.cases import Cases, Scores, positive_column
from pneumo.pipeline.evaluation.results import Bootstrap, Estimate
from pneumo.pipeline.evaluation.stress.shifts import Shift, list_shifts
from pneumo.pipeline.ludwig import runtime
from pneumo.pipeline.runs.run import Run, RunInfo
from pneumo.serving.contracts.cores import available_cores
from pneumo.serving.contracts.errors import InputError
from pneumo.serving.contracts.files import write_text
from pneumo.serving.contracts.models import FrozenModel
from pneumo.serving.images import preparation as image
from pneumo.serving.images.preparation import Preparation
from pneumo.serving.images.types import Gray

if TYPE_CHECKING:
    from pneumo.pipeline.decisions import Decisions

FILE = "stress.json"
IMAGES = 200
"""Most images that are changed: forty changes of 200 images are 8,000 to predict."""

RESAMPLES = 200
SHOWN = ("auroc", "balanced_accuracy", "sensitivity", "specificity", "uncertain")


class ShiftResult(FrozenModel):
    """How a model does under one change.

    Attributes:
        name: Kind of change.
        strength: How much, with its unit.
        metrics: By name, see `results.TITLES`; rates are at the threshold of the run.
        crossed_auroc: The lesser AUROC where only the positive or only the negative images are changed: what happens
            when the change comes with the diagnosis, as where one ward has another scanner. None with more classes.
        flagged: Share of images called out of distribution; None in a report of an older pneumo
            about a run without a bundle.
    """

    name: str
    strength: str
    metrics: dict[str, Estimate]
    crossed_auroc: float | None = None
    flagged: float | None

    @property
    def title(self) -> str:
        """Kind and strength."""
        return f"{self.name}, {self.strength}" if self.strength else self.name


class Summary(FrozenModel):
    """All changes in a few numbers; None where a metric was undefined throughout.

    Attributes:
        mean_auroc: Mean over the changes.
        worst_auroc: The least of them.
        worst_shift: The change that gave it.
        mean_crossed_auroc: Mean over the changes of the AUROC with one class changed, see `ShiftResult`.
        worst_crossed_auroc: The least of them.
        worst_crossed_shift: The change that gave it.
        mean_balanced_accuracy: Mean over the changes, at the threshold of the run.
        worst_balanced_accuracy: The least of them.
    """

    mean_auroc: float | None
    worst_auroc: float | None
    worst_shift: str | None
    mean_crossed_auroc: float | None = None
    worst_crossed_auroc: float | None = None
    worst_crossed_shift: str | None = None
    mean_balanced_accuracy: float | None
    worst_balanced_accuracy: float | None


class StressReport(FrozenModel):
    """`stress.json`.

    Attributes:
        run: Name of the run.
        data: The data set, by name.
        data_fingerprint: Its fingerprint.
        split: What was changed.
        images: How many images of it.
        patients: How many patients.
        classes: Class names, in column order.
        positive: The positive class with two classes.
        threshold: Probability from which the positive class is said.
        bootstrap: How intervals were made.
        unchanged: The same images as they are.
        shifts: Under each change, in the order of `shifts.list_shifts`.
        summary: The changes in a few numbers.
    """

    schema_version: int = 1
    run: str
    data: str
    data_fingerprint: str
    split: str
    images: int
    patients: int
    classes: list[str]
    positive: str | None
    threshold: float | None
    bootstrap: Bootstrap
    unchanged: ShiftResult
    shifts: list[ShiftResult]
    summary: Summary


def run_stress_test(
    run: Run,
    *,
    images: int = IMAGES,
    resamples: int = RESAMPLES,
    seed: int = 0,
    progress: Callable[[str], None] | None = None,
) -> StressReport:
    """Predict validation images under every change of `list_shifts`, measure, write `stress.json` into the run folder.

    Args:
        run: A finished run that was evaluated.
        images: Most images that are taken, evenly over the validation split.
        resamples: Bootstrap resamples, over patients.
        seed: Seed of the bootstrap.
        progress: Told what comes next: the images that the run knows, then the title of each change.

    Raises:
        InputError: The run has no model or was not evaluated, or its data set is gone, has changed or has no validation
            images.
    """
    from pneumo.pipeline.ludwig.inference import load_model, predict_outputs

    info = run.info()
    decisions = deciding.read_decisions(run)
    dataset, rows = _validation(info, images)
    preparation = Preparation.model_validate(info.preparation)
    stored = _stored(dataset, rows, preparation)
    with runtime.log_to_file(run.log):
        model = load_model(run)
    if progress:
        progress("known images")
    quantile = decisions.outlier_quantile
    guard = OutlierLimit.of_bundle(run, quantile=quantile) or OutlierLimit.of_model(
        lambda inputs: predict_outputs(model, info, inputs)[1], info, dataset, quantile=quantile
    )
    settings = Bootstrap(resamples=resamples, seed=seed)

    def measure(shift: Shift | None, plain: Cases | None = None) -> tuple[ShiftResult, Cases]:
        if progress:
            progress(shift.title if shift else "unchanged")
        inputs = _changed(stored, rows, shift, preparation)
        return _measure(model, info, rows, inputs, decisions, guard, settings, shift, plain)

    unchanged, plain = measure(None)
    results = [measure(shift, plain)[0] for shift in list_shifts()]
    report = StressReport(
        run=info.name,
        data=dataset.folder.name or info.data,
        data_fingerprint=info.data_fingerprint,
        split="validation",
        images=len(rows),
        patients=len({row.patient for row in rows}),
        classes=info.classes,
        positive=info.positive,
        threshold=decisions.threshold,
        bootstrap=settings,
        unchanged=unchanged,
        shifts=results,
        summary=summarise_shifts(results),
    )
    write_text(run.folder / FILE, report.model_dump_json(indent=2) + "\n")
    return report


def summarise_shifts(results: Sequence[ShiftResult]) -> Summary:
    """Mean and worst of the metrics under all changes."""
    auroc = {
        result.title: estimate.value for result in results if (estimate := result.metrics["auroc"]).value is not None
    }
    balanced = [
        estimate.value for result in results if (estimate := result.metrics["balanced_accuracy"]).value is not None
    ]
    crossed = {result.title: result.crossed_auroc for result in results if result.crossed_auroc is not None}
    worst = min(auroc, key=lambda title: auroc[title]) if auroc else None
    hardest = min(crossed, key=lambda title: crossed[title]) if crossed else None
    return Summary(
        mean_auroc=float(np.mean(list(auroc.values()))) if auroc else None,
        worst_auroc=auroc[worst] if worst else None,
        worst_shift=worst,
        mean_crossed_auroc=float(np.mean(list(crossed.values()))) if crossed else None,
        worst_crossed_auroc=crossed[hardest] if hardest else None,
        worst_crossed_shift=hardest,
        mean_balanced_accuracy=float(np.mean(balanced)) if balanced else None,
        worst_balanced_accuracy=min(balanced) if balanced else None,
    )


def _validation(info: RunInfo, images: int) -> tuple[Dataset, tuple[Row, ...]]:
    try:
        dataset = manifest.read_dataset(Path(info.data))
    except InputError as error:
        raise InputError(f"{info.name}: its data set cannot be read: {error}") from None
    if dataset.info.fingerprint != info.data_fingerprint:
        raise InputError(
            f"{info.data}: not the data set that {info.name} was trained on (its fingerprint differs); "
            "import that one again"
        )
    rows = dataset.select(Split.VALIDATION)
    if not rows:
        raise InputError(
            f"{info.data}: no validation images, which --stress changes; import it with a validation split"
        )
    picked = np.linspace(0, len(rows) - 1, min(images, len(rows))).astype(int)
    return dataset, tuple(rows[position] for position in picked)


def _stored(dataset: Dataset, rows: Sequence[Row], preparation: Preparation) -> list[Gray]:
    """The images as they lie in the data set, uint8 [S, S]: changed before they are resized to the model's input."""
    from pneumo.pipeline.data.training_images import read_images

    whole = preparation.model_copy(update={"height": preparation.size, "width": preparation.size, "channels": 1})
    return [pixels[:, :, 0] for pixels in read_images(dataset, rows, whole)]


def _changed(stored: Sequence[Gray], rows: Sequence[Row], shift: Shift | None, preparation: Preparation) -> list[Gray]:
    """Model inputs, uint8 [H, W, C]."""

    def change(gray: Gray, row: Row) -> Gray:
        moved = shift.apply(gray, row.image) if shift else gray
        small = image.resize(moved, preparation.height, preparation.width)
        return np.repeat(small[:, :, None], preparation.channels, axis=2)

    with ThreadPoolExecutor(max_workers=available_cores()) as pool:
        return list(pool.map(change, stored, rows))


def _measure(
    model: Any,
    info: RunInfo,
    rows: Sequence[Row],
    inputs: Sequence[Gray],
    decisions: "Decisions",
    guard: OutlierLimit,
    settings: Bootstrap,
    shift: Shift | None,
    plain: Cases | None,
) -> tuple[ShiftResult, Cases]:
    from pneumo.pipeline.ludwig.inference import predict_outputs

    logits, embedding = predict_outputs(model, info, inputs)
    scores = Scores(
        image=[row.image for row in rows],
        split=np.full(len(rows), "validation"),
        patient=np.array([row.patient for row in rows], dtype=np.str_),
        truth=np.array([info.classes.index(row.label) for row in rows], dtype=np.int64),
        logits=logits.astype(np.float64),
    )
    cases = Cases.make(scores, decisions, positive_column(info.classes, info.positive))
    metrics, _ = estimate_metrics(cases, info.classes, settings)
    result = ShiftResult(
        name=shift.name if shift else "unchanged",
        strength=shift.strength if shift else "",
        metrics={name: value for name, value in metrics.items() if name.partition(":")[0] in SHOWN},
        crossed_auroc=crossed_auroc(cases, plain) if plain else None,
        flagged=guard.flagged(embedding, inputs),
    )
    return result, cases


def crossed_auroc(changed: Cases, plain: Cases) -> float | None:
    """The lesser AUROC where the images of one class only are changed.

    A shift of all scores leaves the AUROC as it is; one that comes with the class shows whether a network reads the
    scanner instead of the lung.

    Args:
        changed: The images as changed, [N].
        plain: The same images as they are, [N].

    Returns:
        None with more than two classes, or images of one class only.
    """
    from sklearn.metrics import roc_auc_score

    positive = plain.positive
    if positive is None or len(np.unique(plain.truth)) < 2:
        return None
    truth = plain.truth == positive
    before, after = plain.probabilities[:, positive], changed.probabilities[:, positive]
    return min(float(roc_auc_score(truth, np.where(truth == kind, after, before))) for kind in (True, False))
