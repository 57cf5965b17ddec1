"""The predictions of a run or a cross-validation under their own decisions, and the same images in a second one."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pneumo.pipeline.crossval.pooling import decide_cases, join_predictions
from pneumo.pipeline.crossval.record import CrossvalFolder
from pneumo.pipeline.data.folds import apply_fold
from pneumo.pipeline.data.manifest import Dataset, Row, Split
from pneumo.pipeline.decisions import read_decisions
from pneumo.pipeline.evaluation.cases import Cases, Ints, positive_column, read_predictions, to_scores
from pneumo.pipeline.evaluation.results import read_metrics
from pneumo.pipeline.evaluation.run_dataset import read_run_dataset, read_training_data
from pneumo.pipeline.runs.run import Run, Status
from pneumo.serving.contracts.arrays import Mask
from pneumo.serving.contracts.errors import InputError

UNMATCHED = -1


@dataclass(frozen=True)
class Predictions:
    """The predictions [N] of a run or a cross-validation: cases, their networks, and the data set they were made on.

    Attributes:
        networks: The runs whose networks predicted: one, or K of the folds of a cross-validation's first repeat.
        network: Position of the network that predicted each image, [N].
        training: Images that each network was trained on, [K, N].
        thresholds: Decision threshold of each network; None with more than two classes.
        remark: A sentence about which images were predicted by what; empty for a run.
    """

    folder: Run | CrossvalFolder
    config: str
    classes: list[str]
    positive: str | None
    dataset: Dataset
    split: NDArray[np.str_]
    cases: Cases
    networks: tuple[Run, ...]
    network: Ints
    training: Mask
    thresholds: list[float | None]
    remark: str = ""

    @classmethod
    def read(cls, folder: Run | CrossvalFolder) -> "Predictions":
        """Read all predictions; raise an `InputError` if they or their data set are missing, damaged or changed."""
        return cls._read_folds(folder) if isinstance(folder, CrossvalFolder) else cls._read_run(folder)

    @classmethod
    def _read_run(cls, run: Run) -> "Predictions":
        info, decisions = run.info(), read_metrics(run).decisions
        scores = to_scores(read_predictions(run), info.classes, place=str(run.predictions))
        trained = scores.split == "train"
        return cls(
            folder=run,
            config=info.config,
            classes=info.classes,
            positive=info.positive,
            dataset=read_run_dataset(info),
            split=scores.split,
            cases=Cases.make(scores, decisions, positive_column(info.classes, info.positive)),
            networks=(run,),
            network=np.zeros(len(trained), dtype=np.int64),
            training=(trained if trained.any() else scores.split != "test")[None],  # an ensemble saw validation images
            thresholds=[decisions.threshold],
        )

    @classmethod
    def _read_folds(cls, folder: CrossvalFolder) -> "Predictions":
        record = folder.read()
        runs = {fold: run for fold, run in folder.list_runs().items() if fold.repeat == 1}
        if record.status is not Status.DONE or len(runs) < record.folds:
            state = f"{len(runs)} of {record.folds} folds are there and done"
            raise InputError(f"{folder.name}: {state}; finish it with `pneumo crossval --resume {folder.name}`")
        dataset = read_training_data(record.name, record.data, record.data_fingerprint)
        frame = join_predictions(runs, record.classes)
        cases = decide_cases(frame, runs, record, place=str(folder.predictions))
        seen = [{row.image for row in apply_fold(dataset, fold).select(Split.TRAIN)} for fold in runs]
        splits = {row.image: row.split.name.lower() for row in dataset.rows}
        repeat = f" Repeat 1 of {record.repeats} is shown." if record.repeats > 1 else ""
        return cls(
            folder=folder,
            config=record.config,
            classes=record.classes,
            positive=record.positive,
            dataset=dataset,
            split=np.array([splits[image] for image in cases.image], dtype=np.str_),
            cases=cases,
            networks=tuple(runs.values()),
            network=frame["fold"].to_numpy(dtype=np.int64) - 1,
            training=np.array([[image in own for image in cases.image] for own in seen]),
            thresholds=[read_decisions(run).threshold for run in runs.values()],
            remark="Out of fold: each image is judged by the network of its fold, which saw neither it nor another "
            f"image of its patient. Test images take no part.{repeat}",
        )

    def list_rows(self) -> list[Row]:
        """Return the rows of the manifest, [N]."""
        rows = {row.image: row for row in self.dataset.rows}
        return [rows[image] for image in self.cases.image]

    def match(self, other: "Predictions") -> Ints:
        """Return the position of each image in other predictions, [N]; `UNMATCHED` if it is not there.

        Images are the same if their names are, in one data set; in two, if the bytes of the original files are.

        Raises:
            InputError: The classes differ, or no image is in both.
        """
        if (self.classes, self.positive) != (other.classes, other.positive):
            classes = [f"{each.folder.name} has the classes {', '.join(each.classes)}" for each in (self, other)]
            raise InputError(f"{classes[0]}, {classes[1]}: they cannot be compared")
        same = self.dataset.info.fingerprint == other.dataset.info.fingerprint
        keys, others = ([row.image if same else row.sha256 for row in each.list_rows()] for each in (self, other))
        places = {key: place for place, key in enumerate(others)}
        found = np.array([places.get(key, UNMATCHED) for key in keys], dtype=np.int64)
        if (found == UNMATCHED).all():
            raise InputError(f"--compare {other.folder.name}: has none of the images of {self.folder.name}")
        return found
