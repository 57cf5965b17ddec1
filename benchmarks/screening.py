"""Screen ideas for the recommended config on images of sources that the network has never seen, and under changes.

    python benchmarks/screening.py --out screening --seeds 2

Each variant of `variants.py` is trained with each seed on two sources of the real X-rays (one of either class), and
judged on images of the two others, as they are and under the stress test's changes for selection; then the other way
round. Images of the training's own sources and changes for the report choose nothing. Differences to the first variant
are paired: intervals of 95% over patients, the seeds and halves averaged. Seeds are outermost: stopped with Ctrl-C it
prints the table of what is done, and with the same --out it goes on there.
"""

import argparse
import json
import time
from pathlib import Path

import numpy as np
from leave_source_out import HALVES, leave_out, source_of
from variants import ROOT, VARIANTS, load_variant

from pneumo.pipeline import training
from pneumo.pipeline.data import importer, manifest
from pneumo.pipeline.data.import_settings import ImportSettings
from pneumo.pipeline.data.manifest import Dataset, Row, Split
from pneumo.pipeline.data.splits import Fractions
from pneumo.pipeline.evaluation.stress.shifts import Use, list_shifts
from pneumo.pipeline.evaluation.stress.stored_images import StoredImages
from pneumo.pipeline.ludwig.inference import load_model, predict_logits
from pneumo.pipeline.runs.run import Run

COLUMNS = ("unchanged", "mean under change", "lowest under change")


def judged_rows(dataset: Dataset, known: tuple[str, str], per_class: int) -> list[Row]:
    """Return as many images of each left-out source, drawn from a seed that is always the same."""
    random, chosen = np.random.default_rng(0), []
    for label in dataset.info.classes:
        rows = [row for row in dataset.select(Split.TEST) if source_of(row) not in known and row.label == label]
        chosen += [rows[place] for place in random.permutation(len(rows))[:per_class]]
    return chosen


def predict_changed(run: Run, dataset: Dataset, rows: list[Row]) -> tuple[np.ndarray, float]:
    """Return margins [changes, N], the unchanged images first, and milliseconds per image."""
    model, info = load_model(run), run.info()
    stored = StoredImages.read(dataset, rows, info)
    margins, seconds = [], 0.0
    for shift in (None, *list_shifts(Use.SELECTION)):
        inputs = stored.change(shift)
        start = time.process_time()
        logits = predict_logits(model, info, inputs)
        seconds += time.process_time() - start
        margins.append(logits[:, 1] - logits[:, 0])
    return np.stack(margins), 1000 * seconds / (len(margins) * len(rows))


def measure(name: str, seed: int, options: argparse.Namespace, parts: list[Dataset], folder: Path) -> None:
    """Train a variant with a seed on both halves; keep the margins of the judged images, and what it cost."""
    kept: dict[str, np.ndarray] = {}
    minutes, cost = [], []
    for half, (known, part) in enumerate(zip(HALVES, parts, strict=True)):
        start = time.process_time()
        run = training.train(load_variant(name, options.epochs), part, root=folder / "runs", seed=seed)
        minutes.append((time.process_time() - start) / 60)
        rows = judged_rows(part, known, options.images)
        kept[f"margins{half}"], milliseconds = predict_changed(run, part, rows)
        cost.append(milliseconds)
        kept[f"labels{half}"] = np.array([row.label == run.info().positive for row in rows])
        kept[f"patients{half}"] = np.array([row.patient for row in rows])
    np.savez(folder / f"{name}, seed {seed}.npz", **kept)
    costs = {"minutes": sum(minutes), "milliseconds": float(np.mean(cost))}
    (folder / f"{name}, seed {seed}.json").write_text(json.dumps(costs), encoding="utf-8")


def areas(margins: np.ndarray, positive: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Return the AUROC of each change, [changes], with images drawn `weights` times, [N]."""
    found = []
    for row in margins:
        order = np.argsort(row, kind="stable")
        weight, label = weights[order], positive[order]
        below = np.cumsum(weight * ~label)  # margins are floats of a network: ties do not matter
        found.append((below * weight * label).sum() / ((weight * label).sum() * (weight * ~label).sum()))
    return np.array(found)


def summarise(found: np.ndarray) -> np.ndarray:
    """Return `COLUMNS` from the AUROC unchanged and of each change."""
    return np.array([found[0], found[1:].mean(), found[1:].min()])


def show(folder: Path, names: list[str], seeds: int, resamples: int = 500) -> None:
    """Print what is done: means over seeds and halves, and the difference to the first variant with its interval."""
    print("| variant | seeds | " + " | ".join(f"{each}: AUROC, difference" for each in COLUMNS), end="")
    print(" | processor minutes | ms an image |\n" + "| --- " * (4 + len(COLUMNS)) + "|")
    draws: dict[str, dict[int, np.ndarray]] = {}
    for name in names:
        done = [seed for seed in range(seeds) if (folder / f"{name}, seed {seed}.json").is_file()]
        draws[name] = {}
        for seed in done:
            kept = np.load(folder / f"{name}, seed {seed}.npz")
            halves = []
            for half in range(len(HALVES)):
                margins, positive = kept[f"margins{half}"], kept[f"labels{half}"]
                patients, place = np.unique(kept[f"patients{half}"], return_inverse=True)
                random = np.random.default_rng(half)  # the same patients for every variant and seed
                chosen = [np.ones(len(positive))]
                for _ in range(resamples):
                    counts = np.bincount(random.integers(len(patients), size=len(patients)), minlength=len(patients))
                    chosen.append(counts[place].astype(float))
                halves.append(np.stack([summarise(areas(margins, positive, weights)) for weights in chosen]))
            draws[name][seed] = np.mean(halves, axis=0)
        if not done:
            continue
        shared = [seed for seed in done if seed in draws[names[0]]]
        cells = []
        for column in range(len(COLUMNS)):
            value = np.mean([draws[name][seed][0, column] for seed in done])
            cell = f"{value:.4f}"
            if name != names[0] and shared:
                pairs = np.mean([(draws[name][seed] - draws[names[0]][seed])[:, column] for seed in shared], axis=0)
                low, high = np.percentile(pairs[1:], [2.5, 97.5])
                cell += f", {pairs[0]:+.4f} ({low:+.4f} to {high:+.4f})"
            cells.append(cell)
        costs = [json.loads((folder / f"{name}, seed {seed}.json").read_text(encoding="utf-8")) for seed in done]
        cells += [f"{np.mean([each[key] for each in costs]):.1f}" for key in ("minutes", "milliseconds")]
        print(f"| {name} | {len(done)} | " + " | ".join(cells) + " |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--archive", type=Path, default=ROOT.parent / "shared" / "data" / "chest_xray_224_train.tar")
    parser.add_argument("--only", nargs="*", help="names of variants, that of comparison first; all by default")
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument(
        "--epochs", type=int, default=4, help="a member of `recommended.yaml` sees each image 4.3 times"
    )
    parser.add_argument("--images", type=int, default=250, help="most images of each left-out source that are judged")
    parser.add_argument("--out", type=Path, required=True, help="keep data, runs and results here, and go on there")
    options = parser.parse_args()
    names = options.only or list(VARIANTS)
    if unknown := set(names) - set(VARIANTS):
        parser.error(f"--only: no variant {sorted(unknown)[0]!r}; there are {', '.join(VARIANTS)}")
    data = options.out / "data"
    if not (data / manifest.MANIFEST).is_file():
        importer.import_dataset(options.archive, data, ImportSettings(fractions=Fractions(0.6, 0.15, 0.25)))
    dataset = manifest.read_dataset(data)
    parts = [leave_out(dataset, known, options.out / "-".join(known)) for known in HALVES]
    try:
        for seed in range(options.seeds):
            for name in names:
                if not (options.out / f"{name}, seed {seed}.json").is_file():
                    measure(name, seed, options, parts, options.out)
                    print(f"{name}, seed {seed}: done", flush=True)
    finally:
        show(options.out, names, options.seeds)


if __name__ == "__main__":
    main()
