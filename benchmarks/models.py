"""The table of models: what finished runs reached, what they took, and what a prediction costs.

    python benchmarks/models.py runs/RUN [runs/RUN ...]

AUROC of the held-out images with its interval, mean AUROC over the changes of the stress test (`pneumo evaluate RUN
--stress` comes first), minutes of training, and of the exported graph its size and the median time of one image on one
thread. Runs that were not exported are exported. The networks take turns image by image, so that a busy machine hits
all alike.
"""

import argparse
import statistics
import time
from pathlib import Path

import numpy as np

from pneumo.pipeline.evaluation.results import read_metrics
from pneumo.pipeline.evaluation.stress.stress_test import read_stress_report
from pneumo.pipeline.export.bundle_export import export_run
from pneumo.pipeline.runs.run import Run
from pneumo.serving.model.bundle import MODEL, Bundle
from pneumo.serving.model.predictor import Predictor

HEAD = "| config | AUROC, held out | images | AUROC under change: mean, worst | minutes | ms per image | MB |"


def time_images(predictors: list[Predictor], images: int) -> list[float]:
    """Return the median milliseconds that each network takes for an image of noise, without decoding it."""
    random, times = np.random.default_rng(0), [[] for _ in predictors]
    for _ in range(images):
        for predictor, seen in zip(predictors, times, strict=True):
            preparation = predictor.bundle.info.preparation
            shape = (1, preparation.channels, preparation.height, preparation.width)
            image = random.random(shape, dtype=np.float32)
            began = time.perf_counter()
            predictor.run(image)
            seen.append(1000 * (time.perf_counter() - began))
    return [statistics.median(seen) for seen in times]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", type=Path, nargs="+")
    parser.add_argument("--split", default="test", help="split that nothing was chosen on")
    parser.add_argument("--images", type=int, default=100, help="images that are timed")
    options = parser.parse_args()
    runs = [Run(folder) for folder in options.runs]
    folders = [run.folder / "bundle" for run in runs]
    bundles = [
        Bundle.open(folder if folder.is_dir() else export_run(run)) for run, folder in zip(runs, folders, strict=True)
    ]
    times = time_images([Predictor(bundle, threads=1) for bundle in bundles], options.images)
    print(HEAD)
    print("| --- " * HEAD.count(" | ") + "| --- |")
    for run, bundle, milliseconds in zip(runs, bundles, times, strict=True):
        info, part, stress = run.info(), read_metrics(run).splits[options.split], read_stress_report(run)
        auroc = part.metrics["auroc"]
        held_out = f"{auroc.value:.3f} ({auroc.low:.3f} to {auroc.high:.3f})"
        changed = f"{stress.summary.mean_auroc:.3f}, {stress.summary.worst_auroc:.3f}" if stress else "-"
        minutes, size = info.durations["train"] / 60, len(bundle.read(MODEL)) / 1e6
        cells = [f"`{Path(info.config).name}`", held_out, part.images, changed, f"{minutes:.1f}"]
        print(f"| {' | '.join(map(str, [*cells, f'{milliseconds:.1f}', f'{size:.1f}']))} |")


if __name__ == "__main__":
    main()
