"""Compare variants of the recommended config, each trained and put through the stress test.

One EfficientNet-Lite0 a variant instead of the recommended three, so that seeds and choices show. Validation images
decide; test images are not looked at. Takes about six minutes a variant and seed on two cores. Seeds are outermost:
stopped with Ctrl-C it prints the table of what is done, and with --out it continues there.
"""

import argparse
import json
import statistics
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import yaml

from pneumo.pipeline import config, training
from pneumo.pipeline.config.experiment import Experiment
from pneumo.pipeline.data import importer, manifest
from pneumo.pipeline.data.manifest import Dataset
from pneumo.pipeline.evaluation import read_metrics
from pneumo.pipeline.evaluation.stress.shifts import Family, Use
from pneumo.pipeline.evaluation.stress.stress_test import run_stress_test

ROOT = Path(__file__).parents[1]
RECOMMENDED = ROOT / "ludwig_configs" / "recommended.yaml"
NETWORK = {
    "type": "efficientnet_lite",
    "batch_norm": "frozen",
    "normalization": "standardize",
    "views": 1,
    "dropout": 0.3,
}
LIGHT = [
    {
        "type": "radiograph_affine",
        "rotation": 5,
        "scale_min": 1,
        "scale_max": 1,
        "aspect": 1,
        "translate": 0,
        "flip": 0.5,
    },
    {
        "type": "radiograph_intensity",
        "contrast_min": 0.9,
        "contrast_max": 1.1,
        "gamma_min": 1,
        "gamma_max": 1,
        "curve": 0,
    },
]
STRONG = [
    {"type": "radiograph_style", "probability": 0.5, "strength": 0.8, "band": 0.03},
    {"type": "radiograph_erasing", "probability": 0.3},
]


def variants(
    augmentation: list[dict[str, object]],
) -> dict[str, tuple[dict[str, object], list[dict[str, object]], int]]:
    """Encoder, augmentations and input size of each variant, by name."""

    def without(kind: str) -> list[dict[str, object]]:
        return [step for step in augmentation if step["type"] != f"radiograph_{kind}"]

    return {
        "recommended augmentation": (NETWORK, augmentation, 96),
        "light augmentation": (NETWORK, LIGHT, 96),
        "light, batch norm trained, no standardising": (
            NETWORK | {"batch_norm": "train", "normalization": "none"},
            LIGHT,
            96,
        ),
        "without affine": (NETWORK, without("affine"), 96),
        "without intensity": (NETWORK, without("intensity"), 96),
        "without sharpness": (NETWORK, without("sharpness"), 96),
        "with style and erasing": (NETWORK, [*augmentation, *STRONG], 96),
        "batch norm trained": (NETWORK | {"batch_norm": "train"}, augmentation, 96),
        "no standardising": (NETWORK | {"normalization": "none"}, augmentation, 96),
        "weight average 0.998": (NETWORK | {"weight_average": 0.998}, augmentation, 96),
        "two views": (NETWORK | {"views": 2}, augmentation, 96),
        "64 px": (NETWORK, augmentation, 64),
        "128 px": (NETWORK, augmentation, 128),
        "frozen network": (NETWORK | {"trainable": False}, augmentation, 96),
    }


def load_variant(name: str, epochs: int, overrides: Sequence[str] = ()) -> Experiment:
    """Return the recommended config with a variant's encoder, augmentations and input size."""
    augmentation = yaml.safe_load(RECOMMENDED.read_text(encoding="utf-8"))["input_features"][0]["augmentation"]
    encoder, steps, side = variants(augmentation)[name]
    return config.load_config(
        RECOMMENDED,
        [
            f"input_features.0.encoder={yaml.safe_dump(encoder, default_flow_style=True)}",
            f"input_features.0.augmentation={yaml.safe_dump(steps, default_flow_style=True)}",
            *(f"input_features.0.preprocessing.{key}={side}" for key in ("height", "width")),
            f"trainer.epochs={epochs}",
            "trainer.batch_size=32",
            *overrides,
        ],
    )


def measure(name: str, seed: int, options: argparse.Namespace, dataset: Dataset, root: Path) -> dict[str, float]:
    """Train a variant with a seed and measure it."""
    run = training.train(load_variant(name, options.epochs), dataset, root=root, seed=seed)
    found = run_stress_test(run, images=options.images, resamples=2)
    summary, by_class = found.summary, found.families[Family.CLASS_LINKED]
    return {
        "clean": read_metrics(run).splits["validation"].metrics["auroc"].value or 0.0,
        "mean": summary.mean_auroc or 0.0,
        "worst": summary.worst_auroc or 0.0,
        "by class": by_class.mean_auroc or 0.0,
        "by class, worst": by_class.worst_auroc or 0.0,
        "reserved": found.families[Use.REPORT].mean_auroc or 0.0,
        "balanced": summary.mean_balanced_accuracy or 0.0,
    }


COLUMNS = ("clean", "mean", "worst", "by class", "by class, worst", "reserved", "balanced")


def line(name: str, seed: str, cells: Iterable[str]) -> str:
    """A row of the tables."""
    return f"{name:<46}{seed:>6}" + "".join(f"{cell:>20}" for cell in cells)


def show(done: list[dict[str, Any]]) -> None:
    """Print mean, least and most over the seeds of each variant."""
    print(f"\n{line('mean (least to most)', 'seeds', COLUMNS)}")
    for name in dict.fromkeys(entry["variant"] for entry in done):
        of_variant = [entry for entry in done if entry["variant"] == name]
        cells = []
        for column in COLUMNS:
            values = [entry[column] for entry in of_variant]
            least, most = (f"{value:.3f}".removeprefix("0") for value in (min(values), max(values)))
            cells.append(f"{statistics.fmean(values):.3f}".removeprefix("0") + f" ({least}-{most})")
        print(line(name, str(len(of_variant)), cells))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--archive", type=Path, default=ROOT.parent / "shared" / "data" / "chest_xray_224_train.tar")
    parser.add_argument("--only", nargs="*", help="names of variants; all by default")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--images", type=int, default=200, help="validation images that are changed")
    parser.add_argument("--out", type=Path, help="keep data, runs and results here, and continue what is there")
    options = parser.parse_args()
    out = options.out or Path(tempfile.mkdtemp(prefix="robustness-"))
    data, results = out / "data", out / "results.jsonl"
    if not (data / manifest.MANIFEST).is_file():
        importer.import_dataset(options.archive, data)
    dataset = manifest.read_dataset(data)
    names = list(variants([]))
    if unknown := set(options.only or ()) - set(names):
        parser.error(f"--only: no variant {sorted(unknown)[0]!r}; there are {', '.join(names)}")
    done = [json.loads(text) for text in results.read_text().splitlines()] if results.is_file() else []
    known = {(entry["variant"], entry["seed"]) for entry in done}
    print(line("variant", "seed", COLUMNS), flush=True)
    try:
        for seed in range(options.seeds):
            for name in options.only or names:
                if (name, seed) in known:
                    continue
                found = measure(name, seed, options, dataset, out / "runs")
                done.append({"variant": name, "seed": seed} | found)
                with results.open("a", encoding="utf-8") as file:
                    file.write(json.dumps(done[-1]) + "\n")
                print(line(name, str(seed), (f"{found[column]:.4f}" for column in COLUMNS)), flush=True)
    finally:
        show(done)


if __name__ == "__main__":
    main()
