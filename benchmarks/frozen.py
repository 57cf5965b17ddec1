"""Seconds to train a head on a frozen network: features computed once, against features computed at each step.

Each network is trained in turn without the cache (`cached_views: 0`) and with it, with and without augmentation, in
one run on the same images. Seconds are those of the stage `train` in `run.json`, features included; AUROC is that of
the test images, which no training saw.
"""

import argparse
import statistics
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from trainer import samples

from pneumo.pipeline import config, training
from pneumo.pipeline.data import importer
from pneumo.pipeline.data.manifest import Split
from pneumo.pipeline.evaluation import read_metrics
from pneumo.pipeline.ludwig import runtime

CONFIG = Path(__file__).parent.parent / "ludwig_configs" / "frozen_vit.yaml"
ENCODER = "input_features.0.encoder"
NETWORKS = {
    "EfficientNet-Lite0": ("{type: efficientnet_lite, trainable: false, dropout: 0.1}", 112),
    "ViT-S/16, random weights": (
        "{type: backbone, network: vit_small_patch16_224.dino, trainable: false, dropout: 0.1}",
        224,
    ),
}
AUGMENTED = {"no augmentation": (0, 1), "augmented": (0, 4, 8)}
"""Cached views to compare; 0 computes features at each step."""


def main(arguments: Sequence[str]) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--archive", type=Path, help="tar of JPEG X-rays; by default phantoms")
    parser.add_argument("--images", type=int, default=512, help="of all splits; a quarter of them for the transformer")
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--turns", type=int, default=1)
    parser.add_argument("--network", default="", help="start of a network's name; all by default")
    options = parser.parse_args(arguments)
    runtime.load_ludwig()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        raw = samples.jpegs(options.archive, folder / "raw", options.images)
        for kind in {path.parent for path in raw.rglob("*.jpeg")}:
            files = sorted(kind.glob("*.jpeg"))
            for path in set(files) - set(files[:: max(1, len(files) // options.images)]):
                path.unlink()  # the import of all would take longer than the rest
        whole = importer.import_dataset(raw, folder / "imported", importer.ImportSettings(size=samples.SIZE))
        print(f"{'network':<26}{'':<18}{'views':>6}{'images':>8}{'epochs':>8}{'seconds':>9}{'ratio':>7}{'AUROC':>7}")
        for network, (encoder, side) in NETWORKS.items():
            if not network.startswith(options.network):
                continue
            images = options.images if side < samples.SIZE else options.images // 4
            dataset = samples.share_of(whole, folder / f"data-{side}", images)
            shape = [f"input_features.0.preprocessing.{key}={side}" for key in ("height", "width")]
            overrides = [f"{ENCODER}={encoder}", *shape, f"trainer.epochs={options.epochs}"]
            for kind, views in AUGMENTED.items():
                given = overrides if kind == "augmented" else [*overrides, "input_features.0.augmentation=[]"]
                seconds: dict[int, list[float]] = {number: [] for number in views}
                auroc = {}
                for _ in range(options.turns):
                    for number in views:
                        experiment = config.load_config(CONFIG, [*given, f"{ENCODER}.cached_views={number}"])
                        run = training.train(experiment, dataset, root=folder / "runs")
                        seconds[number].append(run.info().durations["train"])
                        auroc[number] = read_metrics(run).splits["test"].metrics["auroc"].value
                for number in views:
                    took = statistics.median(seconds[number])
                    ratio = statistics.median(a / b for a, b in zip(seconds[0], seconds[number], strict=True))
                    count = len(dataset.select(Split.TRAIN)) + len(dataset.select(Split.VALIDATION))
                    row = f"{network:<26}{kind:<18}{number or 'off':>6}{count:>8}{options.epochs:>8}"
                    print(f"{row}{took:>9.1f}{ratio:>7.1f}{auroc[number]:>7.3f}", flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
