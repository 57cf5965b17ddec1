"""Stress test of a run: its validation images, changed as another scanner, operator or export would change them.

A validation split of the same source hardly separates good models from brittle ones: nearly all reach the same AUROC on
it. The test images stay unseen.
"""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from pneumo.pipeline import decisions as deciding
from pneumo.pipeline.data.manifest import Dataset, Row, Split
from pneumo.pipeline.data.training_images import read_images
from pneumo.pipeline.decisions.outlier_limit import OutlierLimit, sample_rows
from pneumo.pipeline.evaluation.bootstrap import estimate_metrics
from pneumo.pipeline.evaluation.cases import Cases, Scores, positive_column
from pneumo.pipeline.evaluation.results import Bootstrap, Estimate
from pneumo.pipeline.evaluation.run_dataset import read_run_dataset
from pneumo.pipeline.evaluation.stress.shifts import Shift, list_shifts
from pneumo.pipeline.ludwig import runtime
from pneumo.pipeline.runs.run import Run
from pneumo.serving.contracts.cores import available_cores
from pneumo.serving.contracts.errors import InputError
from pneumo.serving.contracts.files import write_text
from pneumo.serving.contracts.models import FrozenModel
from pneumo.serving.images import preparation as image
from pneumo.serving.images.preparation import Preparation
from pneumo.serving.images.types import Gray

FILE = "stress.json"
IMAGES = 200
"""Most images that are changed: forty changes of 200 images are 8,000 predictions."""

SHOWN = ("auroc", "balanced_accuracy", "sensitivity", "specificity", "uncertain")


class ShiftResult(FrozenModel):
    """Metrics under one change, by the names in `results.TITLES`; rates are at the run's decision threshold.

    Attributes:
        crossed_auroc: The lower AUROC if only the positive or only the negative images are changed: the effect of a
            change that comes with the diagnosis, such as a ward with another scanner. None with more classes.
        flagged: Share of images called out-of-distribution; None in some reports of an older pneumo.
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
    """Mean and worst of the metrics over all changes; None if a metric is undefined under every change.

    `crossed_auroc` is the AUROC with one class changed, see `ShiftResult`; `worst_shift` and `worst_crossed_shift` are
    the changes with the lowest AUROC. Balanced accuracy is at the run's decision threshold.
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
    """`stress.json`: a run's validation images without a change and under each change of `shifts.list_shifts`.

    Rates are at `threshold`, the run's decision threshold. Classes are in column order.
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
    run: Run, *, images: int = IMAGES, resamples: int = 200, progress: Callable[[str], None] = lambda _: None
) -> StressReport:
    """Measure validation images under every change of `list_shifts`; write `stress.json` into the run folder.

    At most `images` are changed, evenly over the split. `progress` is called with the title of each step. Raises an
    `InputError` without model or decisions, or if the data set is gone, has changed or has no validation images.
    """
    from pneumo.pipeline.ludwig.inference import load_model, predict_outputs

    info = run.info()
    decisions = deciding.read_decisions(run)
    dataset = read_run_dataset(info)
    rows = _pick_validation(dataset, images)
    preparation = Preparation.model_validate(info.preparation)
    stored = _read_stored(dataset, rows, preparation)
    progress("loading Ludwig")
    with runtime.log_to_file(run.log):
        model = load_model(run)
    progress("known images")
    quantile = decisions.outlier_quantile
    guard = OutlierLimit.from_bundle(run, quantile=quantile) or OutlierLimit.from_model(
        lambda inputs: predict_outputs(model, info, inputs)[1], info, dataset, quantile=quantile
    )
    settings = Bootstrap(resamples=resamples)

    def measure(shift: Shift | None, plain: Cases | None = None) -> tuple[ShiftResult, Cases]:
        progress(shift.title if shift else "unchanged")
        inputs = _change_images(stored, rows, shift, preparation)
        logits, embedding = predict_outputs(model, info, inputs)
        scores = Scores.from_rows(rows, logits, info.classes)
        cases = Cases.make(scores, decisions, positive_column(info.classes, info.positive))
        metrics, _ = estimate_metrics(cases, info.classes, settings)
        result = ShiftResult(
            name=shift.name if shift else "unchanged",
            strength=shift.strength if shift else "",
            metrics={name: value for name, value in metrics.items() if name.partition(":")[0] in SHOWN},
            crossed_auroc=crossed_auroc(cases, plain) if plain else None,
            flagged=guard.share_above(embedding, inputs),
        )
        return result, cases

    unchanged, plain = measure(None)
    results = [measure(shift, plain)[0] for shift in list_shifts()]
    report = StressReport(
        run=info.name,
        data=dataset.folder.name or info.data,
        data_fingerprint=info.data_fingerprint,
        split="validation",
        images=len(rows),
        patients=plain.patients,
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
    """Return mean and worst of the metrics over all changes."""

    def values(metric: str) -> dict[str, float]:
        estimates = {result.title: result.metrics[metric].value for result in results}
        return {title: value for title, value in estimates.items() if value is not None}

    def mean(values: dict[str, float]) -> float | None:
        return float(np.mean(list(values.values()))) if values else None

    auroc, balanced = values("auroc"), values("balanced_accuracy")
    crossed = {result.title: result.crossed_auroc for result in results if result.crossed_auroc is not None}
    return Summary(
        mean_auroc=mean(auroc),
        worst_auroc=min(auroc.values(), default=None),
        worst_shift=min(auroc, key=auroc.__getitem__, default=None),
        mean_crossed_auroc=mean(crossed),
        worst_crossed_auroc=min(crossed.values(), default=None),
        worst_crossed_shift=min(crossed, key=crossed.__getitem__, default=None),
        mean_balanced_accuracy=mean(balanced),
        worst_balanced_accuracy=min(balanced.values(), default=None),
    )


def _pick_validation(dataset: Dataset, images: int) -> tuple[Row, ...]:
    rows = dataset.select(Split.VALIDATION)
    if not rows:
        raise InputError(
            f"{dataset.folder}: no validation images, which --stress changes; import it with a validation split"
        )
    return sample_rows(rows, images)


def _read_stored(dataset: Dataset, rows: Sequence[Row], preparation: Preparation) -> list[Gray]:
    """Read the images as stored, uint8 [S, S]: they are changed before they are resized to the model's input."""
    whole = preparation.model_copy(update={"height": preparation.size, "width": preparation.size, "channels": 1})
    return [pixels[:, :, 0] for pixels in read_images(dataset, rows, whole)]


def _change_images(
    stored: Sequence[Gray], rows: Sequence[Row], shift: Shift | None, preparation: Preparation
) -> list[Gray]:
    """Change stored images, or leave them, and return model inputs, uint8 [H, W, C]."""

    def change(gray: Gray, row: Row) -> Gray:
        changed = shift.apply(gray, row.image) if shift else gray
        resized = image.resize(changed, preparation.height, preparation.width)
        return np.repeat(resized[:, :, None], preparation.channels, axis=2)

    with ThreadPoolExecutor(max_workers=available_cores()) as pool:
        return list(pool.map(change, stored, rows))


def crossed_auroc(changed: Cases, plain: Cases) -> float | None:
    """Return the lower AUROC of two: only the positive images changed, or only the negative ones.

    A shift of all scores leaves the AUROC as it is. One that comes with the class shows whether a network reads the
    scanner instead of the lung. None with more than two classes, or with images of one class only.
    """
    from sklearn.metrics import roc_auc_score

    positive = plain.positive
    if positive is None or len(np.unique(plain.truth)) < 2:
        return None
    truth = plain.truth == positive
    before, after = plain.probabilities[:, positive], changed.probabilities[:, positive]
    return min(float(roc_auc_score(truth, np.where(truth == kind, after, before))) for kind in (True, False))
