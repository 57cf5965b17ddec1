"""Balanced accuracy that a recalibration regains, against the number of labelled images of the new site.

    python benchmarks/recalibration.py --bundle BUNDLE --data DATA

Test images of the bundle's own data set are changed as another scanner, operator or export would change them, or
images of another data set are taken as they are (`--site`). From one half some images are drawn at random, decisions
are fitted to them as `pneumo recalibrate` does, and the other half judges; patients are in one half only.
"""

import argparse
from pathlib import Path

import numpy as np

from pneumo.pipeline.data import manifest
from pneumo.pipeline.data.manifest import Dataset, Row, Split
from pneumo.pipeline.decisions import Decisions
from pneumo.pipeline.decisions.transfer import LabelledLogits, transfer_decisions
from pneumo.pipeline.evaluation.stress.shifts import Shift, list_shifts
from pneumo.pipeline.release.recalibration.site import Site, read_decisions
from pneumo.serving.contracts.errors import CheckFailedError
from pneumo.serving.images.decode import read_stored
from pneumo.serving.images.preparation import to_input
from pneumo.serving.model.bundle import Bundle
from pneumo.serving.model.calibration import calibrate_logits
from pneumo.serving.model.predictor import BATCH, Predictor

CHANGES = (
    "gamma, lighter, exponent 0.45",
    "contrast down, factor 0.45",
    "tone curve, S, slope 2.5",
    "blur, sigma 2 px",
    "zoom in, factor 1.25",
    "wider, factor 1.3",
    "taller, factor 1.3",
    "histogram equalisation, 100%",
)
IMAGES = (10, 20, 50, 100, 200)


def measure_logits(predictor: Predictor, dataset: Dataset, rows: list[Row], shift: Shift | None) -> np.ndarray:
    """Return the logits [N, K] of images, changed if there is a shift."""
    preparation, logits = predictor.bundle.info.preparation, []
    for start in range(0, len(rows), BATCH):
        inputs = []
        for row in rows[start : start + BATCH]:
            gray = read_stored(dataset.path(row).read_bytes(), preparation).gray
            inputs.append(to_input(shift.apply(gray, row.image) if shift else gray, preparation))
        logits.append(predictor.run(np.stack(inputs)).logits)
    return np.concatenate(logits).astype(np.float64)


def judge(decisions: Decisions, images: LabelledLogits, positive: int) -> float:
    """Return the balanced accuracy of decisions on some images."""
    answer = decisions.predict(calibrate_logits(images.logits, decisions.temperature), positive)
    return float(np.mean([(answer == label)[images.labels == label].mean() for label in (0, 1)]))


def take(images: LabelledLogits, rows: np.ndarray) -> LabelledLogits:
    """Return some of the images."""
    return LabelledLogits(images.logits[rows], images.labels[rows])


def regain(site: Site, images: LabelledLogits, halves: np.ndarray, options: argparse.Namespace) -> list[list[float]]:
    """Return the balanced accuracy on one half before, and after each number of images of the other, per repetition."""
    positive, rules = site.positive, site.rules(options.policy)
    assert positive is not None
    held_out, results = take(images, np.flatnonzero(halves)), []
    pool = np.flatnonzero(~halves)
    for repetition in range(options.repetitions):
        drawn = np.random.default_rng(repetition).permutation(pool)
        line = [judge(read_decisions(site.bundle.info), held_out, positive)]
        for count in IMAGES:
            own = take(images, drawn[:count])
            try:
                fitted = transfer_decisions(
                    own,
                    site.prior_logits,
                    positive=positive,
                    classes=site.bundle.info.classes,
                    rules=rules,
                    fitted_on="the site",
                )
            except CheckFailedError:
                fitted = read_decisions(site.bundle.info)
            line.append(judge(fitted, held_out, positive))
        results.append(line)
    return results


def main() -> None:
    """Print a table: a row per change."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--bundle", type=Path, required=True)
    parser.add_argument("--data", type=Path, required=True, help="data set of the bundle, for its test images")
    parser.add_argument("--site", type=Path, help="data set of another site, used as it is")
    parser.add_argument("--images", type=int, default=1200)
    parser.add_argument("--repetitions", type=int, default=25)
    parser.add_argument("--policy")
    options = parser.parse_args()
    bundle = Bundle.open(options.bundle)
    predictor = Predictor(bundle)
    dataset = manifest.read_dataset(options.data)
    shifts: list[tuple[str, Dataset, Shift | None]] = [("unchanged", dataset, None)]
    shifts += [(shift.title, dataset, shift) for shift in list_shifts() if shift.title in CHANGES]
    if options.site:
        shifts = [(options.site.name, manifest.read_dataset(options.site), None)]
    print("| site | before | " + " | ".join(f"{count} images" for count in IMAGES) + " |")
    print("| --- " * (2 + len(IMAGES)) + "|")
    gains = []
    for name, data, shift in shifts:
        rows = list(data.rows if options.site else data.select(Split.TEST))
        order = np.random.default_rng(0).permutation(len(rows))[: options.images]
        rows = [rows[place] for place in order]
        labels = np.array([bundle.info.classes.index(row.label) for row in rows])
        images = LabelledLogits(measure_logits(predictor, data, rows, shift), labels)
        patients = sorted({row.patient for row in rows})
        half = set(np.random.default_rng(1).permutation(patients)[::2])
        halves = np.array([row.patient in half for row in rows])
        results = np.array(regain(Site(bundle, data, None, True), images, halves, options))  # type: ignore[arg-type]
        worst = np.quantile(results, 0.1, axis=0)
        cells = [f"{results[0, 0]:.3f}"]
        cells += [f"{results[:, place].mean():.3f} ({worst[place]:.3f})" for place in range(1, results.shape[1])]
        print(f"| {name} | {' | '.join(cells)} |", flush=True)
        gains.append(results[:, 1:].mean(axis=0) - results[0, 0])
    if len(gains) > 1:
        print(f"| mean gain of the changed | | {' | '.join(f'{each:+.3f}' for each in np.mean(gains[1:], axis=0))} |")


if __name__ == "__main__":
    main()
