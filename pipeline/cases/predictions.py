"""The predictions of a run under its own decisions, and the same images in a second run."""

from dataclasses import dataclass

import numpy as np

from pneumo.pipeline.data.manifest import Dataset, Row
from pneumo.pipeline.evaluation.cases import Cases, Ints, Scores, positive_column, read_predictions, to_scores
from pneumo.pipeline.evaluation.results import read_metrics
from pneumo.pipeline.evaluation.run_dataset import read_run_dataset
from pneumo.pipeline.runs.run import Run, RunInfo
from pneumo.serving.contracts.errors import InputError

UNMATCHED = -1


@dataclass(frozen=True)
class Predictions:
    """The predictions [N] of a run: logits, answers, and the data set that they were made on."""

    run: Run
    info: RunInfo
    dataset: Dataset
    scores: Scores
    cases: Cases
    threshold: float | None

    @classmethod
    def read(cls, run: Run) -> "Predictions":
        """Read all predictions; raise an `InputError` if they or their data set are missing, damaged or changed."""
        info, decisions = run.info(), read_metrics(run).decisions
        scores = to_scores(read_predictions(run), info.classes, place=str(run.predictions))
        cases = Cases.make(scores, decisions, positive_column(info.classes, info.positive))
        return cls(run, info, read_run_dataset(info), scores, cases, decisions.threshold)

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
        if (self.info.classes, self.info.positive) != (other.info.classes, other.info.positive):
            classes = [f"{each.info.name} has the classes {', '.join(each.info.classes)}" for each in (self, other)]
            raise InputError(f"{classes[0]}, {classes[1]}: they cannot be compared")
        same = self.dataset.info.fingerprint == other.dataset.info.fingerprint
        keys, others = ([row.image if same else row.sha256 for row in each.list_rows()] for each in (self, other))
        places = {key: place for place, key in enumerate(others)}
        found = np.array([places.get(key, UNMATCHED) for key in keys], dtype=np.int64)
        if (found == UNMATCHED).all():
            raise InputError(f"--compare {other.run.name}: has none of the images of {self.run.name}")
        return found
