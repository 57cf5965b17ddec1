"""Two runs side by side: where they come from, what was set, and how they do on the held-out images that both have."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from pneumo.pipeline.config import document
from pneumo.pipeline.data import manifest
from pneumo.pipeline.evaluation.cases import Cases, Scores, positive_column, read_predictions, to_scores
from pneumo.pipeline.evaluation.paired import Difference, compare_models
from pneumo.pipeline.evaluation.results import TITLES, Bootstrap, Estimate, Metrics, place, read_metrics
from pneumo.pipeline.runs.run import Run, RunInfo
from pneumo.serving.contracts.errors import InputError
from pneumo.serving.contracts.files import write_text
from pneumo.serving.contracts.models import FrozenModel

_FACTS = ("config", "data", "data_fingerprint", "seed", "git_commit", "refit_of", "started")


class Setting(FrozenModel):
    """One thing in which two runs differ, or may.

    Attributes:
        name: What; of a config the path of the key, such as `trainer.epochs`.
        first: Its value in the first run; None where it is not set.
        second: In the second.
    """

    name: str
    first: Any
    second: Any

    @property
    def differs(self) -> bool:
        """Whether the runs differ in it."""
        return bool(self.first != self.second)


class RunComparison(FrozenModel):
    """Two runs side by side.

    Attributes:
        first: Name of the first run.
        second: Name of the second.
        facts: Where they come from: config, data, seed, versions, hardware, time.
        settings: Every key of both configs.
        split: The images that figures are of; `images` of `patients`, those that both runs held back.
        bootstrap: How intervals and p-values were made.
        differences: Metric by metric; without intervals and p-values where the runs share no images.
        notes: What a reader should know.
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
    notes: list[str]


def compare_runs(
    first: Run, second: Run, *, split: str = "test", resamples: int = 2000, seed: int = 0
) -> RunComparison:
    """Compare two finished runs.

    Args:
        first: The one that differences start from.
        second: The other.
        split: Which images; an image counts where both runs have it in this split.
        resamples: Draws of patients, the same for both runs.
        seed: Seed of the draws.

    Raises:
        InputError: A run did not finish or was not evaluated, or the two tell different classes.
    """
    infos = first.info(), second.info()
    if infos[0].classes != infos[1].classes or infos[0].positive != infos[1].positive:
        told = [f"{info.name} tells {', '.join(info.classes)}" for info in infos]
        raise InputError(f"{told[0]}, {told[1]}: their figures cannot be compared")
    bootstrap = Bootstrap(resamples=resamples, seed=seed)
    one_data = infos[0].data_fingerprint == infos[1].data_fingerprint
    held = [_held_out(run, info, split, by_name=one_data) for run, info in zip((first, second), infos, strict=True)]
    cases, notes = _shared(held[0], held[1], split)
    if cases:
        differences = compare_models(*cases, infos[0].classes, bootstrap)
    else:
        measured = [run_held.metrics.splits.get(split) for run_held in held]
        differences = _unpaired(*(part.metrics if part else {} for part in measured))
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
        notes=notes,
    )


def write_page(path: Path, found: RunComparison) -> None:
    """Write a comparison as one HTML file that needs nothing else, in the look of a run's report."""
    from pneumo.pipeline.evaluation.report.template import render

    page = render("comparison.html", found=found, made=f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_text(path, page)
    except OSError as error:
        raise InputError(f"--html {path}: cannot be written ({error.strerror})") from None


@dataclass(frozen=True)
class _HeldOut:
    """The images of one split of a run, and what they are known by: None where nothing tells them from others."""

    info: RunInfo
    metrics: Metrics
    scores: Scores
    index: Mapping[str, int] | None

    def cases(self, keys: Sequence[str], patients: Sequence[str]) -> Cases:
        """Some of the images, in order, under the run's own decisions."""
        assert self.index is not None
        rows = np.array([self.index[key] for key in keys])
        scores = Scores(
            image=list(keys),
            split=self.scores.split[rows],
            patient=np.array(patients, dtype=np.str_),
            truth=self.scores.truth[rows],
            logits=self.scores.logits[rows],
        )
        return Cases.make(scores, self.metrics.decisions, positive_column(self.info.classes, self.info.positive))


def _held_out(run: Run, info: RunInfo, split: str, *, by_name: bool) -> _HeldOut:
    metrics = read_metrics(run)
    scores = to_scores(read_predictions(run), info.classes, place=str(run.predictions)).select(split)
    names: Mapping[str, str] | None = {name: name for name in scores.image} if by_name else _digests(info)
    index = None if names is None else {names[name]: row for row, name in enumerate(scores.image) if name in names}
    return _HeldOut(info, metrics, scores, index)


def _digests(info: RunInfo) -> Mapping[str, str] | None:
    """Digest of each original image by name; None where the run's data set is gone or another one by now."""
    try:
        dataset = manifest.read_dataset(Path(info.data))
    except InputError:
        return None
    same = dataset.info.fingerprint == info.data_fingerprint
    return {row.image: row.sha256 for row in dataset.rows} if same else None


def _shared(first: _HeldOut, second: _HeldOut, split: str) -> tuple[tuple[Cases, Cases] | None, list[str]]:
    """Both runs on the images that both have in a split, and what a reader should know about that."""
    gone = [each.info for each in (first, second) if each.index is None]
    if first.index is None or second.index is None:
        where = ", ".join(f"{info.data} of {info.name}" for info in gone)
        why = f"the runs have different data sets, and {where} is gone or has changed"
        return None, [f"{why}: nobody can tell which images both have, so no intervals and no p-values"]
    there = first.index.keys() & second.index.keys()
    keys = sorted(
        key for key in there if first.scores.truth[first.index[key]] == second.scores.truth[second.index[key]]
    )
    if not keys:
        return None, [f"no {split} image is in both data sets: no intervals and no p-values"]
    notes = []
    counts = [len(each.scores.image) for each in (first, second)]
    if max(counts) > len(keys):
        notes.append(f"figures are of the {len(keys)} {split} images that both have, of {counts[0]} and {counts[1]}")
    if len(keys) < len(there):
        notes.append(f"{len(there) - len(keys)} images have another label in the other data set and are left out")
    patients = [str(first.scores.patient[first.index[key]]) for key in keys]
    return (first.cases(keys, patients), second.cases(keys, patients)), notes


def _unpaired(first: Mapping[str, Estimate], second: Mapping[str, Estimate]) -> list[Difference]:
    names = sorted({name for name in (*first, *second) if name.partition(":")[0] in TITLES}, key=place)
    return [
        Difference(
            metric=name,
            first=first[name].value if name in first else None,
            second=second[name].value if name in second else None,
            reason="other images",
        )
        for name in names
    ]


def _facts(first: RunInfo, second: RunInfo) -> Iterator[Setting]:
    one, other = first.model_dump(mode="json"), second.model_dump(mode="json")
    for name in _FACTS:
        yield Setting(name=name.replace("_", " "), first=one[name], second=other[name])
    for part, names in (("versions", None), ("hardware", None), ("durations", ("total", "training"))):
        for key in sorted(one[part].keys() | other[part].keys()):
            if names is None or key in names:
                told = {"versions": "", "hardware": "", "durations": "seconds of "}[part] + key
                yield Setting(name=told, first=one[part].get(key), second=other[part].get(key))


def _settings(first: Run, second: Run) -> list[Setting]:
    one, other = (dict(_leaves(document.read_document(run.config).data)) for run in (first, second))
    return [
        Setting(name=key, first=one.get(key), second=other.get(key)) for key in (*one, *(other.keys() - one.keys()))
    ]


def _leaves(value: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[str, Any]]:
    """Every plain value of a config under the path of its key."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else None
    if items is None or not value:
        yield ".".join(path), value
        return
    for key, item in items:
        yield from _leaves(item, (*path, str(key)))
