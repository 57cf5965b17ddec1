"""Comparison of two runs: provenance, settings, and metrics on the held-out images that both have."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pneumo.pipeline.config import document
from pneumo.pipeline.evaluation.cases import Cases, Scores, positive_column, read_predictions, to_scores
from pneumo.pipeline.evaluation.paired import Difference, compare_models
from pneumo.pipeline.evaluation.results import TITLES, Bootstrap, Estimate, Metrics, display_rank, read_metrics
from pneumo.pipeline.evaluation.run_dataset import read_run_dataset, read_unchanged
from pneumo.pipeline.runs.run import Run, RunInfo
from pneumo.pipeline.runs.settings import flatten_settings
from pneumo.serving.contracts.errors import InputError
from pneumo.serving.contracts.files import write_text
from pneumo.serving.contracts.models import FrozenModel

_FACTS = ("config", "data", "data_fingerprint", "seed", "git_commit", "started")


class Setting(FrozenModel):
    """A value of two runs, None if it is not set; its name is a config key such as `trainer.epochs`."""

    name: str
    first: object
    second: object

    @property
    def differs(self) -> bool:
        """True if the values differ."""
        return self.first != self.second


class Flip(FrozenModel):
    """An image of the class `label` that two runs call differently.

    Probabilities are calibrated, of the ground truth.
    """

    image: str
    label: str
    first: str
    second: str
    first_probability: float
    second_probability: float

    @property
    def verdict(self) -> str:
        """Which run is right."""
        return {self.first: "right only in A", self.second: "right only in B"}.get(self.label, "wrong in both")


class RunComparison(FrozenModel):
    """Two runs side by side: provenance, every key of both configs, and metrics on the images that both held out.

    Differences have no intervals and p-values if the runs share no images. The images whose predicted class differs
    come with the largest change of the ground truth's probability first; their names are those of the first run's data.
    """

    first: str
    second: str
    facts: list[Setting]
    settings: list[Setting]
    split: str
    images: int
    patients: int
    bootstrap: Bootstrap
    differences: list[Difference]
    flips: list[Flip]
    notes: list[str]

    @property
    def titles(self) -> tuple[str, str]:
        """Name of each run's config, after the letter that tells the runs apart."""
        config = next(each for each in self.facts if each.name == "config")
        return f"A: {Path(str(config.first)).stem}", f"B: {Path(str(config.second)).stem}"


def compare_runs(first: Run, second: Run, *, split: str = "test", resamples: int = 2000) -> RunComparison:
    """Compare two finished runs; differences are the second run minus the first.

    An image counts if both runs have it in this split. Resamples draw the same patients for both runs. Raises an
    `InputError` if a run was not evaluated, or the two have different classes.
    """
    infos = first.info(), second.info()
    if infos[0].classes != infos[1].classes or infos[0].positive != infos[1].positive:
        classes = [f"{info.name} has the classes {', '.join(info.classes)}" for info in infos]
        raise InputError(f"{classes[0]}, {classes[1]}: their metrics cannot be compared")
    bootstrap = Bootstrap(resamples=resamples)
    one_data = infos[0].data_fingerprint == infos[1].data_fingerprint
    held = [_read_held_out(run, info, split, one_data) for run, info in zip((first, second), infos, strict=True)]
    cases, notes = _match(held[0], held[1], split)
    if first.folder.resolve() == second.folder.resolve():
        notes.insert(0, f"{first.name} is compared with itself: nothing differs")
    if cases:
        differences = compare_models(*cases, infos[0].classes, bootstrap)
    else:
        differences = _unpaired(*(part.measured for part in held))
    return RunComparison(
        first=first.name,
        second=second.name,
        facts=list(_facts(*infos)),
        settings=_settings(first, second),
        split=split,
        images=len(cases[0]) if cases else 0,
        patients=cases[0].patients if cases else 0,
        bootstrap=bootstrap,
        differences=differences,
        flips=_list_flips(*cases, infos[0].classes) if cases else [],
        notes=notes,
    )


def write_page(path: Path, comparison: RunComparison) -> None:
    """Write a comparison as one HTML file that loads nothing, in the style of a run's report.

    Images that flipped are shown, if the data set of the first run has not changed.
    """
    from pneumo.pipeline.evaluation.report.mistakes import SHOWN, make_thumbnail
    from pneumo.pipeline.evaluation.report.template import render

    facts = {each.name: str(each.first) for each in comparison.facts}
    folder = Path(facts["data"])
    _, missing = read_unchanged(folder, facts["data fingerprint"])
    filters = {"thumbnail": lambda image: None if missing else make_thumbnail(folder, image)}
    page = render("comparison.html", filters=filters, comparison=comparison, missing=missing, shown=SHOWN)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_text(path, page)
    except OSError as error:
        raise InputError(f"--html {path}: cannot be written ({error.strerror})") from None


@dataclass(frozen=True)
class _HeldOut:
    """The images of one split of a run, with the split's metrics.

    `index` is the row of each image by its name or digest; None if the data set is gone or has changed.
    """

    info: RunInfo
    metrics: Metrics
    measured: Mapping[str, Estimate]
    scores: Scores
    index: Mapping[str, int] | None


def _read_held_out(run: Run, info: RunInfo, split: str, by_name: bool) -> _HeldOut:
    metrics = read_metrics(run)
    scores = to_scores(read_predictions(run), info.classes, place=str(run.predictions)).select(split)
    keys: Mapping[str, str] | None = {name: name for name in scores.image} if by_name else _read_digests(info)
    index = None if keys is None else {keys[name]: row for row, name in enumerate(scores.image) if name in keys}
    measured = metrics.splits[split].metrics if split in metrics.splits else {}
    return _HeldOut(info, metrics, measured, scores, index)


def _read_digests(info: RunInfo) -> Mapping[str, str] | None:
    """Return the digest of each original image by name; None if the run's data set is gone or has changed."""
    try:
        return {row.image: row.sha256 for row in read_run_dataset(info).rows}
    except InputError:
        return None


def _match(first: _HeldOut, second: _HeldOut, split: str) -> tuple[tuple[Cases, Cases] | None, list[str]]:
    """Return both runs on the images that both held out, and notes about what was left out."""
    if first.index is None or second.index is None:
        gone = [f"{each.info.data} of {each.info.name}" for each in (first, second) if each.index is None]
        why = f"the runs have different data sets, and {', '.join(gone)} is gone or has changed"
        return None, [f"{why}: the images that both have are unknown, so there are no intervals and no p-values"]
    shared = {key: (first.index[key], second.index[key]) for key in sorted(first.index.keys() & second.index.keys())}
    same = {key: rows for key, rows in shared.items() if first.scores.truth[rows[0]] == second.scores.truth[rows[1]]}
    if not same:
        return None, [f"no {split} image is in both data sets: no intervals and no p-values"]
    notes = []
    counts = [len(each.scores.image) for each in (first, second)]
    if max(counts) > len(same):
        notes.append(f"metrics are of the {len(same)} {split} images that both have, of {counts[0]} and {counts[1]}")
    if len(same) < len(shared):
        notes.append(f"{len(shared) - len(same)} images have another label in the other data set and are left out")
    patients = first.scores.patient[[row for row, _ in same.values()]]

    def cases(held: _HeldOut, side: int) -> Cases:
        rows = [pair[side] for pair in same.values()]
        images = [held.scores.image[row] for row in rows]
        truth, logits = held.scores.truth[rows], held.scores.logits[rows]
        scores = Scores(images, held.scores.split[rows], patients, truth, logits)
        return Cases.make(scores, held.metrics.decisions, positive_column(held.info.classes, held.info.positive))

    return (cases(first, 0), cases(second, 1)), notes


def _list_flips(first: Cases, second: Cases, classes: list[str]) -> list[Flip]:
    before, after = (cases.truth_probability(cases.probabilities) for cases in (first, second))
    rows = np.flatnonzero(first.answer != second.answer)
    return [
        Flip(
            image=first.image[row],
            label=classes[first.truth[row]],
            first=classes[first.answer[row]],
            second=classes[second.answer[row]],
            first_probability=float(before[row]),
            second_probability=float(after[row]),
        )
        for row in rows[np.argsort(-np.abs(after - before)[rows], kind="stable")]
    ]


def _unpaired(first: Mapping[str, Estimate], second: Mapping[str, Estimate]) -> list[Difference]:
    """Return the metrics of runs that share no images, without differences."""
    names = sorted({name for name in (*first, *second) if name.partition(":")[0] in TITLES}, key=display_rank)
    none = Estimate(value=None)
    values = ((name, first.get(name, none).value, second.get(name, none).value) for name in names)
    return [Difference(metric=name, first=one, second=other, reason="different images") for name, one, other in values]


def _facts(first: RunInfo, second: RunInfo) -> Iterator[Setting]:
    one, other = first.model_dump(mode="json"), second.model_dump(mode="json")
    for name in _FACTS:
        yield Setting(name=name.replace("_", " "), first=one[name], second=other[name])
    for part, prefix in (("versions", ""), ("hardware", ""), ("durations", "seconds of ")):
        for key in sorted(one[part].keys() | other[part].keys()):
            yield Setting(name=prefix + key, first=one[part].get(key), second=other[part].get(key))


def _settings(first: Run, second: Run) -> list[Setting]:
    one, other = (flatten_settings(document.read_document(run.config).data) for run in (first, second))
    return [
        Setting(name=key, first=one.get(key), second=other.get(key)) for key in (*one, *(other.keys() - one.keys()))
    ]
