"""Simulates drift of increasing strength, to see if the alarm comes before the model's errors increase."""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pneumo.pipeline.data.manifest import Dataset, Row, Split
from pneumo.pipeline.decisions.outlier_limit import sample_rows
from pneumo.pipeline.drift.changed_images import Scene, predict_changes
from pneumo.pipeline.drift.grades import Grade, list_grades
from pneumo.pipeline.drift.plot import draw_simulation
from pneumo.pipeline.drift.simulation_result import Point, Simulation
from pneumo.serving.contracts.errors import InputError, MachineError
from pneumo.serving.contracts.files import write_text
from pneumo.serving.contracts.install_hints import missing_module
from pneumo.serving.drift.column_tests import ColumnTests
from pneumo.serving.drift.samples import LEAST, read_reference
from pneumo.serving.drift.verdict import Verdict
from pneumo.serving.images.types import Gray
from pneumo.serving.model.bundle import Bundle

PICTURE, DOCUMENT = "simulation.png", "simulation.json"


@dataclass(frozen=True)
class Plan:
    """The size of a simulation.

    Attributes:
        split: Split of the images; those of the reference raise too few alarms.
        size: Images per window.
        images: Maximum images, evenly over the split; all of them by default.
    """

    split: Split = Split.TEST
    windows: int = 100
    size: int = 100
    images: int | None = None
    seed: int = 0


def simulate_drift(
    bundle: Bundle,
    dataset: Dataset,
    plan: Plan,
    *,
    photographs: Sequence[Gray] = (),
    progress: Callable[[str], object] = lambda title: None,
) -> Simulation:
    """Change the images of a split more and more, and measure the model's errors and the alarms of the drift check.

    Photographs are images that are no radiographs, uint8 [S, S]; `progress` is called with the title of each step.

    Raises:
        InputError: Too few images in the split, other classes or another preparation, or the bundle has no reference.
        MachineError: ONNX Runtime is not installed.
    """
    try:
        from pneumo.serving.model.predictor import Predictor
    except ModuleNotFoundError as error:
        raise MachineError(missing_module(error)) from None
    info = bundle.info
    rows = dataset.select(plan.split)
    rows = sample_rows(rows, len(rows) if plan.images is None else plan.images)
    _check_fit(bundle, dataset, rows, plan)
    judge = ColumnTests(read_reference(bundle), positive_class=info.positive_class)
    grades = [grade for grade in list_grades() if photographs or not grade.photographs]
    scene = predict_changes(Predictor(bundle), dataset, rows, grades, photographs=photographs, progress=progress)
    progress("windows")
    unchanged, *points = (
        measure_grade(scene, judge, grade, plan.windows, plan.size, plan.seed)
        for grade in (None, *grades)
        if grade is None or scene.has_enough(grade, plan.size)
    )
    return Simulation(
        model=info.name,
        version=info.version,
        data=dataset.folder.resolve().name,
        data_fingerprint=dataset.info.fingerprint,
        split=plan.split.name.lower(),
        images=len(rows),
        patients=len({row.patient for row in rows}),
        windows=plan.windows,
        size=plan.size,
        unchanged=unchanged,
        points=points,
    )


def measure_grade(scene: Scene, judge: ColumnTests, grade: Grade | None, windows: int, size: int, seed: int) -> Point:
    """Measure alarms and accuracy at a grade that has enough images, or of unchanged images."""
    drawn = (scene.draw_window(grade, size, np.random.default_rng((seed, number))) for number in range(windows))
    results = [judge.compare(window) for window in drawn]
    verdicts = [verdict for verdict, _ in results]
    alarms = Counter(column.name for _, columns in results for column in columns if column.verdict is not Verdict.OK)
    auroc, accuracy = _measure_quality(scene, grade)
    return Point(
        kind=grade.kind if grade else "unchanged",
        label=grade.label if grade else "",
        auroc=auroc,
        accuracy=accuracy,
        alarms=float(np.mean([verdict in (Verdict.WARNING, Verdict.DRIFT) for verdict in verdicts])),
        drifts=float(np.mean([verdict is Verdict.DRIFT for verdict in verdicts])),
        columns=[name for name, _ in alarms.most_common(3)],
    )


def write_simulation(simulation: Simulation, folder: Path) -> list[Path]:
    """Write plot and JSON, and return their paths; raise a `MachineError` without matplotlib."""
    folder.mkdir(parents=True, exist_ok=True)
    picture, document = paths = [folder / PICTURE, folder / DOCUMENT]
    picture.write_bytes(draw_simulation(simulation))
    write_text(document, simulation.model_dump_json(indent=2) + "\n")
    return paths


def _check_fit(bundle: Bundle, dataset: Dataset, rows: Sequence[Row], plan: Plan) -> None:
    info, data, wanted = bundle.info, dataset.info, bundle.info.preparation
    if (data.size, data.fit, data.decode) != (wanted.size, wanted.fit, wanted.decode):
        raise InputError(
            f"{dataset.folder}: prepared at {data.size} pixels, {data.fit.value}, decode {data.decode.value}, not as "
            f"{info.id} needs it; import it with --size {wanted.size} --fit {wanted.fit.value} "
            f"--decode {wanted.decode.value}"
        )
    if unknown := sorted(set(data.classes) - set(info.classes)):
        raise InputError(f"{dataset.folder}: class {unknown[0]!r} is not one of {info.id}: {', '.join(info.classes)}")
    if plan.size < LEAST:
        raise InputError(f"--size {plan.size}: a drift check needs at least {LEAST} images")
    if len(rows) < plan.size:
        raise InputError(
            f"{dataset.folder}: {len(rows)} {plan.split.name.lower()} images, fewer than a window of {plan.size}; "
            "choose another --split or a smaller --size"
        )


def _measure_quality(scene: Scene, grade: Grade | None) -> tuple[float | None, float]:
    """Return AUROC and accuracy of the radiographs, weighted by the shares of changed images and of classes."""
    from sklearn.metrics import roc_auc_score

    share = 0.0 if grade is None or grade.change is None else grade.share
    after = scene.plain if grade is None else scene.select(grade)
    weights = np.ones(len(scene))
    if grade is not None and grade.positive is not None and scene.positive is not None:
        prevalence = scene.positive.mean()
        weights = np.where(scene.positive, grade.positive / prevalence, (1 - grade.positive) / (1 - prevalence))
    both = np.concatenate([weights * share, weights * (1 - share)])
    accuracy = float(np.average(np.concatenate([after.right, scene.plain.right]), weights=both))
    if scene.positive is None or scene.positive.all() or not scene.positive.any():
        return None, accuracy
    scores = np.concatenate([images.sample.numbers["probability"] for images in (after, scene.plain)])
    used = both > 0
    truth = np.tile(scene.positive, 2)
    return float(roc_auc_score(truth[used], scores[used], sample_weight=both[used])), accuracy
