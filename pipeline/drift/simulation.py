"""Whether the alarm comes before the harm: accuracy and alarms as the images that come change more and more."""

import csv
import io
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import numpy as np
from pydantic import BaseModel, ConfigDict

from pneumo.pipeline.data.manifest import Dataset, Row, Split
from pneumo.pipeline.drift.changed_images import Scene, see
from pneumo.pipeline.drift.grades import Grade, graded
from pneumo.pipeline.runs.run import write_text
from pneumo.serving.contracts.errors import InputError, MachineError
from pneumo.serving.contracts.schemas import NOTICE
from pneumo.serving.drift.column_tests import Judge
from pneumo.serving.drift.samples import LEAST, reference_of
from pneumo.serving.drift.verdict import ColumnResult, Verdict
from pneumo.serving.images.preparation import Gray
from pneumo.serving.model.bundle import Bundle

HARM = 0.02
"""Fall of the AUROC from which on a model is harmed."""
SURE = 0.95
"""Share of windows that must raise the alarm for it to be sure."""

PICTURE, DOCUMENT, TABLE = "simulation.png", "simulation.json", "simulation.csv"


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Point(_Frozen):
    """How it goes under one grade of one change.

    Attributes:
        kind: Of change.
        label: Its strength.
        auroc: Of the radiographs; None with more than two classes.
        accuracy: Share of radiographs with the right label.
        alarms: Share of windows that gave at least a warning.
        drifts: Share of windows that gave drift.
        columns: Those that raised most alarms, at most three.
    """

    kind: str
    label: str
    auroc: float | None
    accuracy: float
    alarms: float
    drifts: float
    columns: list[str]


class Simulation(_Frozen):
    """`simulation.json`.

    Attributes:
        model: Name of the model, with its `version`.
        data: The data set, by name, and its `data_fingerprint`.
        split: The images that were changed.
        images: How many, of how many `patients`.
        windows: Windows for each point.
        size: Images in each.
        unchanged: The images as they are: what is raised there are false alarms.
        points: Each kind of change, mildest first.
        notice: What this is not.
    """

    schema_version: int = 1
    model: str
    version: str
    data: str
    data_fingerprint: str
    split: str
    images: int
    patients: int
    windows: int
    size: int
    unchanged: Point
    points: list[Point]
    notice: str = NOTICE

    def kinds(self) -> dict[str, list[Point]]:
        """Points by kind of change."""
        found: dict[str, list[Point]] = {}
        for point in self.points:
            found.setdefault(point.kind, []).append(point)
        return found

    def harm(self, points: Iterable[Point]) -> Point | None:
        """The mildest of some points at which the AUROC has fallen by `HARM`."""
        before = self.unchanged.auroc
        if before is None:
            return None
        return next((point for point in points if point.auroc is not None and before - point.auroc >= HARM), None)


def sure_alarm(points: Iterable[Point]) -> Point | None:
    """The mildest of some points at which the alarm is sure."""
    return next((point for point in points if point.alarms >= SURE), None)


def simulate(
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
        raise MachineError(f"{error.name} is not installed: `pip install 'pneumo[serve]'` brings it") from None
    info = bundle.info
    rows = _rows(dataset, split, images)
    _fits(bundle, dataset, rows, split, size)
    judge = Judge(reference_of(bundle), positive_class=info.positive_class)
    grades = [grade for grade in graded() if strangers or not grade.strangers]
    scene = see(Predictor(bundle), dataset, rows, grades, strangers=strangers, progress=progress)
    if progress:
        progress("windows")
    points = [measure(scene, judge, grade, windows, size, seed) for grade in grades if scene.has(grade, size)]
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
        unchanged=measure(scene, judge, None, windows, size, seed),
        points=points,
    )


def measure(scene: Scene, judge: Judge, grade: Grade | None, windows: int, size: int, seed: int) -> Point:
    """Alarms and accuracy under one grade that the scene has, or of images as they are."""
    drawn = (scene.window(grade, size, np.random.default_rng((seed, number))) for number in range(windows))
    found = [judge.judge(window) for window in drawn]
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


def write(simulation: Simulation, folder: Path) -> list[Path]:
    """Write picture, JSON and CSV; returns their paths.

    Raises:
        MachineError: matplotlib is not installed.
    """
    from pneumo.pipeline.drift.plot import picture

    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / name for name in (PICTURE, DOCUMENT, TABLE)]
    paths[0].write_bytes(picture(simulation))
    write_text(paths[1], simulation.model_dump_json(indent=2) + "\n")
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(Point.model_fields)
    for point in (simulation.unchanged, *simulation.points):
        writer.writerow([*point.model_dump(exclude={"columns"}).values(), " ".join(point.columns)])
    write_text(paths[2], text.getvalue())
    return paths


def _rows(dataset: Dataset, split: Split, images: int | None) -> tuple[Row, ...]:
    rows = dataset.of(split)
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
