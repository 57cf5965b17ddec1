"""What makes a model robust: variants of the recommended config, each trained and put through the stress test.

One EfficientNet-Lite0 a variant instead of the recommended three, so that seeds and choices show. Validation images
decide; test images are not looked at. Takes about six minutes a variant on two cores.
"""

import argparse
import tempfile
from pathlib import Path

import yaml

from pipeline import config, training
from pipeline.data import importing, manifest
from pipeline.evaluation import read_metrics
from pipeline.evaluation.stress import stress

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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--archive", type=Path, default=ROOT.parent / "shared" / "data" / "chest_xray_224_train.tar")
    parser.add_argument("--only", nargs="*", help="names of variants; all by default")
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--out", type=Path, help="keep data and runs here")
    options = parser.parse_args()
    out = options.out or Path(tempfile.mkdtemp(prefix="robustness-"))
    data = out / "data"
    if not (data / manifest.MANIFEST).is_file():
        importing.import_dataset(options.archive, data)
    dataset = manifest.read(data)
    augmentation = yaml.safe_load(RECOMMENDED.read_text(encoding="utf-8"))["input_features"][0]["augmentation"]
    columns = ("clean", "mean", "crossed", "worst", "balanced")
    print(f"{'variant':<46}{'seed':>5}" + "".join(f"{name:>10}" for name in columns), flush=True)
    for name, (encoder, steps, side) in variants(augmentation).items():
        if options.only and name not in options.only:
            continue
        for seed in range(options.seeds):
            experiment = config.load(
                RECOMMENDED,
                [
                    f"input_features.0.encoder={yaml.safe_dump(encoder, default_flow_style=True)}",
                    f"input_features.0.augmentation={yaml.safe_dump(steps, default_flow_style=True)}",
                    *(f"input_features.0.preprocessing.{key}={side}" for key in ("height", "width")),
                    f"trainer.epochs={options.epochs}",
                    "trainer.batch_size=32",
                ],
            )
            run = training.train(experiment, dataset, root=out / "runs", seed=seed)
            clean = read_metrics(run).splits["validation"].metrics["auroc"].value
            found = stress(run).summary
            values = (
                clean,
                found.mean_auroc,
                found.mean_crossed_auroc,
                found.worst_auroc,
                found.mean_balanced_accuracy,
            )
            cells = "".join(f"{value:>10.3f}" if value is not None else f"{'-':>10}" for value in values)
            print(f"{name:<46}{seed:>5}{cells}", flush=True)


if __name__ == "__main__":
    main()
