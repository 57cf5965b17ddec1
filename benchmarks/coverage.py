"""Coverage of prediction sets by class, with one conformal limit for all classes and with one for each.

    python benchmarks/coverage.py runs/RUN --splits 400

The held-out images of a run (validation and test) are divided at random by patient, again and again: temperature and
limits are fitted to one half, and the other half is covered.
"""

import argparse
from pathlib import Path

import numpy as np

from pneumo.pipeline.decisions.calibration import fit_conformal_limits, fit_temperature
from pneumo.pipeline.evaluation.cases import Scores, read_predictions, to_scores
from pneumo.pipeline.runs.run import Run
from pneumo.serving.model.calibration import build_prediction_sets, calibrate_logits


def cover(scores: Scores, fitting: np.ndarray, level: float, *, by_class: bool) -> list[float]:
    """Return the coverage of all images and of each class, the share of empty sets and of sets of one class."""
    temperature = fit_temperature(scores.logits[fitting], scores.truth[fitting])
    probabilities = calibrate_logits(scores.logits, temperature)
    given, truth = probabilities[fitting], scores.truth[fitting]
    if not by_class:  # the score of the ground truth, whatever the class
        given, truth = given[np.arange(len(truth)), truth][:, None], np.zeros_like(truth)
    sets = build_prediction_sets(probabilities, fit_conformal_limits(given, truth, level))[~fitting]
    truth = scores.truth[~fitting]
    covered, sizes = sets[np.arange(len(truth)), truth], sets.sum(axis=1)
    classes = [float(covered[truth == column].mean()) for column in range(sets.shape[1])]
    return [float(covered.mean()), *classes, float((sizes == 0).mean()), float((sizes == 1).mean())]


def main() -> None:
    """Print a row per kind of limit: mean and deviation over the splits."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", type=Path)
    parser.add_argument("--splits", type=int, default=400)
    parser.add_argument("--level", type=float, default=0.9)
    options = parser.parse_args()
    run = Run(options.run)
    classes = run.info().classes
    frame = read_predictions(run)
    scores = to_scores(frame[frame["split"] != "train"], classes, place=str(run.predictions))
    patient = np.unique(scores.patient, return_inverse=True)[1]
    print(
        f"{len(scores.truth)} images of {patient.max() + 1} patients, level {options.level:g}, {options.splits} splits"
    )
    columns = ["coverage", *(f"of {name}" for name in classes), "empty sets", "sets of one class"]
    print(f"| limits | {' | '.join(columns)} |")
    print("| --- " * (len(columns) + 1) + "|")
    for by_class in (False, True):
        random, rows = np.random.default_rng(0), []
        for _ in range(options.splits):
            fitting = (random.permutation(patient.max() + 1) < patient.max() / 2)[patient]
            rows.append(cover(scores, fitting, options.level, by_class=by_class))
        mean, deviation = np.mean(rows, axis=0), np.std(rows, axis=0)
        cells = (f"{one:.3f} (deviation {other:.3f})" for one, other in zip(mean, deviation, strict=True))
        print(f"| {'one per class' if by_class else 'one for all'} | {' | '.join(cells)} |")


if __name__ == "__main__":
    main()
