"""Whether the alarm comes before the harm: accuracy and alarms as the images that come change more and more."""

import csv
import io
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import numpy as np

from pneumo.pipeline.data.manifest import Dataset, Row, Split
from pneumo.pipeline.drift.changed_images import Scene, predict_changes
from pneumo.pipeline.drift.grades import Grade, list_grades
from pneumo.pipeline.drift.plot import draw_simulation
from pneumo.pipeline.drift.simulation_result import Point, Simulation
from pneumo.serving.contracts.errors import InputError, MachineError
from pneumo.serving.contracts.files import write_text
from pneumo.serving.contracts.install_hints import missing_module
from pneumo.serving.drift.column_tests import ColumnTests
from pneumo.serving.drift.samples import LEAST, read_reference
from pneumo.serving.drift.verdict import ColumnResult, Verdict
from pneumo.serving.images.types import Gray
from pneumo.serving.model.bundle import Bundle

PICTURE, DOCUMENT, TABLE = "simulation.png", "simulation.json", "simulation.csv"


def simulate_drift(
    bundle: Bundle,
    dataset: Dataset,
    *,
    split: Split = Split.TEST,
    windows: int = 100,
    size: int = 100,
    images: int | None = None,
    strangers: Sequence[Gray] = (),
    seed: int = 0,
    progress: Callable[[str], None] | None = None,
) -> Simulation:
    """Change the images of a split more and more, and see when the model errs and when the drift check notices.

    Args:
        bundle: The model.
        dataset: Prepared as the model needs it, with true labels.
        split: Which images; those of the reference raise too few alarms.
        windows: Windows for each point.
        size: Images in each window.
        images: Most images, evenly over the split; all of them by default.
        strangers: Images that are no radiographs, uint8 [S, S].
        seed: Of the windows.
        progress: Told what comes next.

    Raises:
        InputError: Too few images in the split, other classes or another preparation, or the bundle has no reference.
        MachineError: ONNX Runtime is not installed.
    """
    try:
        from pneumo.serving.model.predictor import Predictor
    except ModuleNotFoundError as error:
        raise MachineError(missing_module(error)) from None
    info = bundle.info
    rows = _rows(dataset, split, images)
    _fits(bundle, dataset, rows, split, size)
    judge = ColumnTests(read_reference(bundle), positive_class=info.positive_class)
    grades = [grade for grade in list_grades() if strangers or not grade.strangers]
    scene = predict_changes(Predictor(bundle), dataset, rows, grades, strangers=strangers, progress=progress)
    if progress:
        progress("windows")
    points = [measure_grade(scene, judge, grade, windows, size, seed) for grade in grades if scene.has(grade, size)]
    return Simulation(
        model=info.name,
        version=info.version,
        data=dataset.folder.resolve().name,
        data_fingerprint=dataset.info.fingerprint,
        split=split.name.lower(),
        images=len(rows),
        patients=len({row.patient for row in rows}),
        windows=windows,
        size=size,
        unchanged=measure_grade(scene, judge, None, windows, size, seed),
        points=points,
    )


def measure_grade(scene: Scene, judge: ColumnTests, grade: Grade | None, windows: int, size: int, seed: int) -> Point:
    """Alarms and accuracy under one grade that the scene has, or of images as they are."""
    drawn = (scene.window(grade, size, np.random.default_rng((seed, number))) for number in range(windows))
    found = [judge.compare(window) for window in drawn]
    verdicts = [verdict for verdict, _ in found]
    auroc, accuracy = _quality(scene, grade)
    return Point(
        kind=grade.kind if grade else "unchanged",
        label=grade.label if grade else "",
        auroc=auroc,
        accuracy=accuracy,
        alarms=float(np.mean([verdict in (Verdict.WARNING, Verdict.DRIFT) for verdict in verdicts])),
        drifts=float(np.mean([verdict is Verdict.DRIFT for verdict in verdicts])),
        columns=_loudest(columns for _, columns in found),
    )


def write_simulation(simulation: Simulation, folder: Path) -> list[Path]:
    """Write picture, JSON and CSV; returns their paths.

    Raises:
        MachineError: matplotlib is not installed.
    """
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / name for name in (PICTURE, DOCUMENT, TABLE)]
    paths[0].write_bytes(draw_simulation(simulation))
    write_text(paths[1], simulation.model_dump_json(indent=2) + "\n")
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(Point.model_fields)
    for point in (simulation.unchanged, *simulation.points):
        writer.writerow([*point.model_dump(exclude={"columns"}).values(), " ".join(point.columns)])
    write_text(paths[2], text.getvalue())
    return paths


def _rows(dataset: Dataset, split: Split, images: int | None) -> tuple[Row, ...]:
    rows = dataset.select(split)
    if images is None or len(rows) <= images:
        return rows
    return tuple(rows[place] for place in np.linspace(0, len(rows) - 1, images).astype(int))


def _fits(bundle: Bundle, dataset: Dataset, rows: Sequence[Row], split: Split, size: int) -> None:
    info, made = bundle.info, dataset.info
    wanted = info.preparation
    if (made.size, made.fit, made.decode) != (wanted.size, wanted.fit, wanted.decode):
        raise InputError(
            f"{dataset.folder}: prepared at {made.size} pixels, {made.fit.value}, decode {made.decode.value}, not as "
            f"{info.id} needs it; import it with --size {wanted.size} --fit {wanted.fit.value} "
            f"--decode {wanted.decode.value}"
        )
    if unknown := sorted(set(made.classes) - set(info.classes)):
        raise InputError(f"{dataset.folder}: class {unknown[0]!r} is not one of {info.id}: {', '.join(info.classes)}")
    if size < LEAST:
        raise InputError(f"--size {size}: a drift check says nothing of fewer than {LEAST} images")
    if len(rows) < size:
        raise InputError(
            f"{dataset.folder}: {len(rows)} {split.name.lower()} images, fewer than a window of {size}; "
            "choose another --split or a smaller --size"
        )


def _quality(scene: Scene, grade: Grade | None) -> tuple[float | None, float]:
    """AUROC and accuracy of the radiographs, where a share of them is changed and classes have their weight."""
    from sklearn.metrics import roc_auc_score

    share = 0.0 if grade is None or grade.change is None else grade.share
    after = scene.plain if grade is None else scene.under(grade)
    weights = np.ones(len(scene))
    if grade is not None and grade.positive is not None and scene.positive is not None:
        part = scene.positive.mean()
        weights = np.where(scene.positive, grade.positive / part, (1 - grade.positive) / (1 - part))
    both = np.concatenate([weights * share, weights * (1 - share)])
    right = np.concatenate([after.right, scene.plain.right])
    accuracy = float(np.average(right, weights=both))
    if scene.positive is None or scene.positive.all() or not scene.positive.any():
        return None, accuracy
    scores = np.concatenate([seen.sample.numbers["probability"] for seen in (after, scene.plain)])
    used = both > 0
    truth = np.concatenate([scene.positive, scene.positive])
    return float(roc_auc_score(truth[used], scores[used], sample_weight=both[used])), accuracy


def _loudest(results: Iterable[Sequence[ColumnResult]]) -> list[str]:
    heard = Counter(column.name for columns in results for column in columns if column.verdict is not Verdict.OK)
    return [name for name, _ in heard.most_common(3)]
