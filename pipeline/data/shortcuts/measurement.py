"""Measure how well numbers without anatomy tell the classes: cross-validation and intervals by patient."""

import hashlib
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from pneumo.pipeline.data.shortcuts.shortcut_report import Shortcut, ShortcutReport
from pneumo.pipeline.data.shortcuts.traits import BORDER, CELLS, DESCRIPTORS, PATCHES, Traits
from pneumo.serving.contracts.arrays import Float32, Float64, Mask
from pneumo.serving.drift.performance import bound_auroc, rank_values

LEAST_PATIENTS = 20
"""Fewest patients of a class, and of all others, to tell anything. With 20 and 20 the AUROC of a number that means
nothing exceeds 0.95 once in a million data sets."""

_FOLDS = 5
_RIDGE = 1.0
"""Half of it times the squared weights is added to the loss: scikit-learn's default."""
_STEPS = 30
_FARTHEST = 10.0
"""Standard deviations at which numbers are cut off."""
_BLOCK = 512
"""Pixels of local contrast that are ranked at once: 50 MB."""

Ints = NDArray[np.intp]
Numbers = Mapping[str, Float64]
"""Numbers of each image, [N], by name."""


@dataclass(frozen=True)
class LabelledTraits:
    """The traits of one image with its class and patient."""

    label: str
    patient: str
    traits: Traits


@dataclass(frozen=True)
class Task:
    """The classes to tell apart, of N images.

    Attributes:
        labels: Names of the classes, sorted.
        told: The classes that are told from all others: one with two classes.
        truth: Images of each of them, [told, N].
        patient: Number of the patient, [N].
        fold: Number of the fold, [N]; a patient is in one.
    """

    labels: list[str]
    told: list[str]
    truth: NDArray[np.bool_]
    patient: Ints
    fold: Ints

    @classmethod
    def make(cls, labels: Sequence[str], patients: Sequence[str]) -> "Task":
        """Make the task of N labels; `told` is empty if no class has enough patients."""
        names, patient = np.unique(np.array(patients, dtype=np.str_), return_inverse=True)
        of_label: defaultdict[str, set[str]] = defaultdict(set)
        own: defaultdict[str, Counter[str]] = defaultdict(Counter)
        for label, name in zip(labels, patients, strict=True):
            of_label[label].add(name)
            own[name][label] += 1
        classes = sorted(of_label)
        enough = [
            label
            for label in classes
            if min(len(of_label[label]), sum(own[name][label] < own[name].total() for name in own)) >= LEAST_PATIENTS
        ]
        told = enough[-1:] if len(classes) == 2 else enough
        # Patients are dealt out class by class, so that each fold has its share of every class.
        order = sorted(own, key=lambda name: (min(own[name]), hashlib.sha256(name.encode()).digest()))
        fold = {name: place % _FOLDS for place, name in enumerate(order)}
        return cls(
            labels=classes,
            told=told,
            truth=np.array([np.array(labels) == label for label in told], dtype=np.bool_),
            patient=patient.astype(np.intp),
            fold=np.array([fold[name] for name in names], dtype=np.intp)[patient],
        )

    @cached_property
    def pairs(self) -> int:
        """The number of patients of the rarest class that is told, or of its others if they are fewer."""
        return min(len(np.unique(self.patient[mask])) for truth in self.truth for mask in (truth, ~truth))


def measure_shortcuts(images: Sequence[LabelledTraits]) -> ShortcutReport:
    """Measure how well the classes are told by each kind of numbers.

    A logistic regression is fitted to the patients of four folds and scores the fifth. A mark is the one number, of
    the shares in the cells of a grid and the local contrast of each pixel, that tells a class best in four folds; its
    AUROC is that of the scores of the fifth.
    """
    labels, patients = [image.label for image in images], [image.patient for image in images]
    task = Task.make(labels, patients)
    count = len(set(patients))
    if not task.told:
        sizes = Counter(label for label, _ in set(zip(labels, patients, strict=True))) or {"images": 0}
        fewest, name = min((number, name) for name, number in sizes.items())
        needed = f"{LEAST_PATIENTS} in each of two classes are needed"
        reason = f"too few patients to tell shortcuts: {name} has {fewest}, and {needed}"
        return ShortcutReport(images=len(images), patients=count, reason=reason)
    traits = [image.traits for image in images]
    kinds: dict[Literal["descriptors", "file", "border"], Numbers] = {
        "descriptors": _columns(DESCRIPTORS, [each.descriptors for each in traits]),
        "file": _file_numbers(traits),
        "border": _columns(BORDER, [each.border for each in traits]),
    }
    shortcuts = []
    for kind, numbers in kinds.items():
        varied = {name: values for name, values in numbers.items() if np.ptp(values) > 0}
        if varied:
            auroc, low, high = estimate_auroc(task, cross_validate(task, np.stack(list(varied.values()), axis=1)))
            single = {name: _measure_single(task, values) for name, values in varied.items()}
            ordered = dict(sorted(single.items(), key=lambda item: -item[1]))
            classes = task.labels if len(task.labels) < 3 else task.told
            shortcuts.append(Shortcut(name=kind, classes=classes, auroc=auroc, low=low, high=high, single=ordered))
    return ShortcutReport(images=len(images), patients=count, shortcuts=[*shortcuts, find_mark(task, traits)])


def cross_validate(task: Task, numbers: Float64) -> Float64:
    """Return the scores of logistic regressions on numbers [N, M] for each class that is told, [told, N]."""
    scores = np.zeros(task.truth.shape)
    for fold in range(_FOLDS):
        known = task.fold != fold
        mean, deviation = numbers[known].mean(axis=0), numbers[known].std(axis=0)
        scaled = ((numbers - mean) / np.maximum(deviation, 1e-12)).clip(-_FARTHEST, _FARTHEST)
        inputs = np.column_stack([np.ones(len(scaled)), scaled])
        for row, truth in enumerate(task.truth):
            scores[row, ~known] = inputs[~known] @ fit_logistic(inputs[known], truth[known])
    return scores


def fit_logistic(inputs: Float64, truth: Mask) -> Float64:
    """Fit a logistic regression with a ridge by Newton's method.

    Returns the weights [M] of inputs [N, M], the first of which is constant.
    """
    weights = np.zeros(inputs.shape[1])
    ridge = np.full(len(weights), _RIDGE)
    ridge[0] = 1e-6
    for _ in range(_STEPS):
        chance = 1 / (1 + np.exp(-(inputs @ weights).clip(-30, 30)))
        curvature = (inputs * (chance * (1 - chance))[:, None]).T @ inputs + np.diag(ridge)
        step = np.linalg.solve(curvature, inputs.T @ (truth - chance) - ridge * weights)
        weights += step
        if np.abs(step).max() < 1e-6:
            break
    return weights


def estimate_auroc(task: Task, scores: Float64) -> tuple[float, float, float]:
    """Return the mean AUROC of scores [told, N] with its 95% interval.

    The variance is that of the images' influences, summed for each patient (Obuchowski, Nonparametric Analysis of
    Clustered ROC Curve Data, 1997). The interval is symmetric in log odds; that of an area of 1 is exact for the number
    of patients, and so is one without variance.
    """
    areas, influence = [], np.zeros(scores.shape[1])
    for truth, values in zip(task.truth, scores, strict=True):
        share = _compare(truth, values)
        areas.append(float(share[truth].mean()))
        influence += (share - areas[-1]) / np.where(truth, truth.sum(), (~truth).sum()) / len(task.truth)
    area, patients = float(np.mean(areas)), int(task.patient.max()) + 1
    variance = float(np.sum(np.bincount(task.patient, influence) ** 2)) * patients / (patients - 1)
    area, low, high = bound_auroc(area, variance, task.pairs)
    return round(area, 4), round(low, 4), round(high, 4)


def find_mark(task: Task, traits: Sequence[Traits]) -> Shortcut:
    """Find the area or spot that tells one class best from the others.

    Marks in one place differ in one number, so that no more are combined: many together would see anatomy.
    """
    columns, signs = _choose_columns(task, traits)
    best: tuple[float, float, float] = (-1.0, 0.0, 0.0)
    row = 0
    for number, truth in enumerate(task.truth):
        one = Task(task.labels, task.told[number : number + 1], truth[None], task.patient, task.fold)
        scores = np.zeros(len(traits))
        for fold in range(_FOLDS):
            held_out = task.fold == fold
            ranks = rank_values(_take_column(traits, int(columns[number, fold])))
            # Around 0, since the numbers of two folds may point to different sides.
            scores[held_out] = (signs[number, fold] * (ranks - (len(ranks) + 1) / 2))[held_out]
        if (estimate := estimate_auroc(one, scores[None])) > best:
            best, row = estimate, number
    column = Counter(columns[row].tolist()).most_common(1)[0][0]
    sign = int(signs[row, columns[row].tolist().index(column)])
    label, others = task.told[row], [name for name in task.labels if name != task.told[row]]
    classes = [label, others[0] if len(others) == 1 else "the rest"]
    if sign < 0 and len(others) == 1:
        classes.reverse()
    auroc, low, high = best
    place = _describe_column(column, 1 if len(others) == 1 else sign, len(traits[0].contrast))
    return Shortcut(name="mark", classes=classes, auroc=auroc, low=low, high=high, place=f"on {classes[0]}, {place}")


def _choose_columns(task: Task, traits: Sequence[Traits]) -> tuple[Ints, Ints]:
    """Return the column whose ranks differ most in the other folds, and the sign of the difference, each [told, folds].

    The difference of mean ranks is the AUROC of a column but for a factor.
    """
    differences = []
    for ranks in _rank_blocks(traits):
        for truth in task.truth:
            cell = task.fold * 2 + truth
            member = (np.arange(2 * _FOLDS)[:, None] == cell).astype(np.float32)
            sums = (member @ ranks).reshape(_FOLDS, 2, -1)
            counts = member.sum(axis=1).reshape(_FOLDS, 2, 1)
            mean = (sums.sum(axis=0) - sums) / (counts.sum(axis=0) - counts)
            differences.append(mean[:, 1] - mean[:, 0])
    told = len(task.told)
    whole = np.stack([np.concatenate(differences[row::told], axis=1) for row in range(told)])
    columns = np.abs(whole).argmax(axis=2)
    return columns, np.sign(np.take_along_axis(whole, columns[..., None], axis=2)[..., 0]).astype(np.intp)


def _rank_blocks(traits: Sequence[Traits]) -> Iterator[Float32]:
    """Yield the ranks in [0, 1] of all numbers in which a mark may show, [N, some]."""
    areas = np.stack([each.areas for each in traits])
    yield (np.stack([rank_values(column) for column in areas.T], axis=1) / len(traits)).astype(np.float32)
    contrast = np.stack([each.contrast.ravel() for each in traits], axis=1)
    for start in range(0, len(contrast), _BLOCK):
        block = contrast[start : start + _BLOCK]
        keys = block + (np.arange(len(block)) << 8)[:, None]
        counts = np.bincount(keys.ravel(), minlength=len(block) << 8).reshape(-1, 256)
        middle = (np.cumsum(counts, axis=1) - counts / 2) / len(traits)
        yield middle.ravel().astype(np.float32)[keys].T


def _take_column(traits: Sequence[Traits], column: int) -> Float64:
    areas = len(traits[0].areas)
    return np.array([each.areas[column] if column < areas else each.contrast.flat[column - areas] for each in traits])


def _describe_column(column: int, sign: int, side: int) -> str:
    more = "more" if sign > 0 else "fewer"
    cells = CELLS**2
    if column < 3 * cells:
        pixels = ("white pixels", "black pixels", "pixels of one gray level")[column // cells]
        y, x = divmod(column % cells, CELLS)
        return f"{more} {pixels} around {_percent(x, CELLS)} from the left, {_percent(y, CELLS)} from the top"
    if column == 3 * cells:
        return f"{more} white pixels in one area, wherever it lies"
    if column <= 3 * cells + len(PATCHES):
        return f"{'a' if sign > 0 else 'no'} white patch, wherever it lies"
    than = "brighter" if sign > 0 else "darker"
    y, x = divmod(column - 3 * cells - 1 - len(PATCHES), side)
    return f"{than} than its surroundings {_percent(x, side)} from the left, {_percent(y, side)} from the top"


def _percent(place: int, places: int) -> str:
    return f"{(place + 0.5) / places:.0%}"


def _measure_single(task: Task, values: Float64) -> float:
    areas = [float(_compare(truth, values)[truth].mean()) for truth in task.truth]
    return round(float(np.mean([max(area, 1 - area) for area in areas])), 4)


def _compare(truth: Mask, values: Float64) -> Float64:
    """Return for each image, [N], the share of images of the other kind with which it is in order, ties by half."""
    ranks, share = rank_values(values), np.empty(len(values))
    share[truth] = (ranks[truth] - rank_values(values[truth])) / (~truth).sum()
    share[~truth] = 1 - (ranks[~truth] - rank_values(values[~truth])) / truth.sum()
    return share


def _columns(names: Sequence[str], rows: Sequence[Float64]) -> Numbers:
    return dict(zip(names, np.stack(rows, axis=1), strict=True))


def _file_numbers(traits: Sequence[Traits]) -> Numbers:
    numbers = _columns(("bytes", "width", "height", "aspect"), [each.file for each in traits])
    known = {name: values for name, values in numbers.items() if np.isfinite(values).all()}
    formats = np.array([each.format or "" for each in traits])
    return known | {f"format {name or 'unknown'}": (formats == name).astype(np.float64) for name in np.unique(formats)}
