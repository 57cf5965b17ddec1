"""Images a second in training, as ratios measured in one run: pneumo, Ludwig twice, and a plain PyTorch loop.

All four train the same network on the same images with the same batches, optimizer and number of threads:

- pneumo: what `pneumo train` does, from an imported data set;
- Ludwig's defaults: `ludwig train` with images read lazily, the training set evaluated, evaluation batches tuned;
- Ludwig at its best: `mode: eager`, `evaluate_training_set: false`, `eval_batch_size` set;
- a plain loop over Ludwig's own network: bytes in memory, channels last, fused AdamW, gradients clipped as Ludwig does,
  and after each epoch an evaluation and a checkpoint.

Ludwig and the loop run networks as they were built; pneumo folds frozen batch norms into convolutions
(`pipeline/ludwig/encoders/norm_folding.py`).
Ludwig is given the JPEG files that pneumo imported, 224 pixels a side, and networks take them smaller, as is usual.
With `--originals 1500x1200` they are enlarged before, to what the file of a film may measure, and the import is timed.

Two rates: of the training steps alone, from batch to optimizer, without the first of each training; and of whole
epochs, with reading, evaluation and checkpoints. What comes before the first epoch (reading all images, building the
network, tuning the evaluation batch) is a column of its own. All run in turns, and the table has medians, so that a
busy machine hits them alike. Start-up is measured apart: from command to first step.
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from operator import attrgetter
from pathlib import Path
from typing import Any

from trainer import samples
from trainer.contenders import BATCH, EPOCHS, ludwig_config, networks_as_built, plain_loop, train_with_ludwig
from trainer.meter import Clock, Measured, Meter

from pneumo.pipeline import config, training
from pneumo.pipeline.config import Experiment
from pneumo.pipeline.data import importer
from pneumo.pipeline.data.manifest import Dataset, Split
from pneumo.pipeline.data.splits import Fractions
from pneumo.pipeline.ludwig import runtime

CONFIGS = Path(__file__).parent.parent / "ludwig_configs"
SMALL = "{type: backbone, network: lcnet_050, dropout: 0.0}"
NETWORKS = {
    "small CNN (timm's lcnet_050 at 96 pixels)": (
        "efficientnet_lite0.yaml",
        (f"input_features.0.encoder={SMALL}", *(f"input_features.0.preprocessing.{k}=96" for k in ("height", "width"))),
    ),
    "EfficientNet-Lite0 at 128 pixels": ("efficientnet_lite0.yaml", ()),
    "frozen batch norm, EfficientNet-Lite0 at 128 pixels": (
        "efficientnet_lite0.yaml",
        ("input_features.0.encoder.batch_norm=frozen",),
    ),
}
ALIKE = (
    "input_features.0.augmentation=[]",
    "trainer.early_stop=-1",
    f"trainer.epochs={EPOCHS}",
    f"trainer.batch_size={BATCH}",
    f"trainer.eval_batch_size={BATCH}",
)


def images_per_second(dataset: Dataset, table: Path, folder: Path, turns: int, start: str) -> None:
    """Measure all four on the networks whose names begin so and print the tables."""
    runtime.load_ludwig()
    import torch

    if Clock.read is time.process_time:
        torch.set_num_threads(1)  # threads that wait for each other count as busy
    meter = Meter()
    kind = "processor time" if Clock.read is time.process_time else "wall time"
    print(
        f"{len(dataset.select(Split.TRAIN))} training and {len(dataset.select(Split.VALIDATION))} validation images, "
        f"batch {BATCH}, {EPOCHS} epochs, {turns} turns, {torch.get_num_threads()} threads, {kind}\n",
        flush=True,
    )
    for name, (file, overrides) in NETWORKS.items():
        if not name.startswith(start):
            continue
        experiment = config.load_config(CONFIGS / file, (*ALIKE, *overrides))
        results: dict[str, list[Measured]] = {}
        training.train(experiment, dataset, root=folder / "runs")  # kernels are chosen at their first use
        for _ in range(turns):
            for contender, result in one_turn(experiment, dataset, table, folder, meter):
                results.setdefault(contender, []).append(result)
        show(name, results)


def one_turn(
    experiment: Experiment, dataset: Dataset, table: Path, folder: Path, meter: Meter
) -> Iterator[tuple[str, Measured]]:
    """Measure each once."""
    yield "pneumo", meter.measure(lambda: training.train(experiment, dataset, root=folder / "runs"))
    for best, contender in ((False, "Ludwig's defaults"), (True, "Ludwig at its best")):
        asked = ludwig_config(experiment, best=best)
        with networks_as_built():
            measured = meter.measure(lambda asked=asked: train_with_ludwig(asked, table, folder / "ludwig"))
        yield contender, measured
    yield "plain PyTorch loop", plain_loop(meter.returned.model, dataset, experiment, folder)


def show(network: str, results: dict[str, list[Measured]]) -> None:
    """Print one network's table."""

    def median(contender: str, value: Callable[[Measured], float]) -> float:
        return statistics.median(value(result) for result in results[contender])

    print(network)
    head = f"{'images/s in':<24}{'steps':>8}{'of loop':>9}{'x Ludwig':>10}{'epochs':>10}{'of loop':>9}{'x Ludwig':>10}"
    print(f"{head}{'evaluate, s':>13}{'before, s':>11}{'spread':>8}")
    for contender, measured in results.items():
        print(f"{contender:<24}", end="")
        for kind, width in (("rate", 8), ("whole_rate", 10)):
            rate = median(contender, attrgetter(kind))
            loop, defaults = (median(other, attrgetter(kind)) for other in ("plain PyTorch loop", "Ludwig's defaults"))
            print(f"{rate:>{width}.1f}{rate / loop:>9.2f}{rate / defaults:>10.2f}", end="")
        evaluation, before = (median(contender, attrgetter(name)) for name in ("evaluation", "before"))
        spread = max(r.whole_rate for r in measured) / min(r.whole_rate for r in measured)
        print(f"{evaluation:>13.1f}{before:>11.1f}{spread:>8.2f}")
    print(flush=True)


def first_step(who: str, asked: Path, data: Path) -> None:
    """Run a command in this process up to its first training step, say so, and leave."""

    def announce(*_: Any, **__: Any) -> None:
        print("FIRST STEP", flush=True, file=sys.__stdout__)
        os._exit(0)

    if who == "pneumo":
        from pneumo.pipeline.cli import main

        load = runtime.load_ludwig

        def load_and_hook(*arguments: Any, **options: Any) -> Any:
            module = load(*arguments, **options)
            from ludwig.trainers.trainer import Trainer

            Trainer.train_step = announce
            return module

        runtime.load_ludwig = load_and_hook
        sys.argv = ["pneumo", "train", str(asked), "--data", str(data), "--runs-dir", str(asked.parent / "runs")]
        main()
    from ludwig.cli import main as ludwig_main
    from ludwig.trainers.trainer import Trainer

    Trainer.train_step = announce
    results = str(asked.parent / "results")
    sys.argv = ["ludwig", "train", "-c", str(asked), "--dataset", str(data / samples.TABLE)]
    sys.argv += ["--output_directory", results]
    sys.argv += ["--skip_save_processed_input"]
    ludwig_main()


def start_up(dataset: Dataset, folder: Path, turns: int) -> None:
    """Measure the time from the command to the first step and print the table."""
    import yaml

    file, overrides = next(iter(NETWORKS.values()))
    experiment = config.load_config(CONFIGS / file, (*ALIKE, *overrides))
    commands = {"pneumo train": "pneumo", "ludwig train, defaults": "ludwig", "ludwig train, best": "ludwig"}
    seconds: dict[str, list[float]] = {name: [] for name in commands}
    for name in commands:
        document = experiment.config if name == "pneumo train" else ludwig_config(experiment, best="best" in name)
        path = folder / f"{name.replace(' ', '-')}.yaml"
        path.write_text(yaml.safe_dump(document), encoding="utf-8")
    for _ in range(turns):
        for name, who in commands.items():
            path = folder / f"{name.replace(' ', '-')}.yaml"
            command = [sys.executable, __file__, "--first-step", who, str(path), str(dataset.folder)]
            began = time.perf_counter()
            with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
                out, err = process.communicate()
            if "FIRST STEP" not in out:
                raise SystemExit(f"{name} took no step: {err[-2000:]}")
            seconds[name].append(time.perf_counter() - began)
    print(f"{'from command to first step':<32}{'seconds':>10}{'ratio':>8}")
    medians = {name: statistics.median(values) for name, values in seconds.items()}
    for name, value in medians.items():
        print(f"{name:<32}{value:>10.1f}{value / medians['ludwig train, defaults']:>8.2f}")


def pixels(text: str) -> tuple[int, int]:
    """Width and height as `1500x1200` says them."""
    width, height = text.split("x")
    return int(width), int(height)


def main(arguments: Sequence[str]) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--archive", type=Path, help="tar of JPEG X-rays, such as chest_xray_224_train.tar; or phantoms"
    )
    parser.add_argument("--images", type=int, default=512, help="images of all splits")
    parser.add_argument("--originals", type=pixels, metavar="WxH", help="enlarge the files to so many pixels first")
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--only", choices=("rate", "start"), help="one of the two tables")
    parser.add_argument("--network", default="", help="start of a network's name, such as Eff; all by default")
    parser.add_argument("--cpu", action="store_true", help="count processor seconds, on one thread: for a busy machine")
    parser.add_argument("--first-step", nargs=3, help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.first_step:
        who, asked, data = options.first_step
        first_step(who, Path(asked), Path(data))
    if options.cpu:
        Clock.read = staticmethod(time.process_time)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        raw = samples.jpegs(options.archive, folder / "raw", options.images)
        whole = importer.import_dataset(raw, folder / "imported", importer.ImportSettings(size=samples.SIZE))
        dataset = samples.share_of(whole, folder / "data", options.images)
        if options.originals:
            raw = samples.enlarge(dataset, raw, folder / "originals", options.originals)
            began = time.perf_counter()
            dataset = importer.import_dataset(
                raw, folder / "again", importer.ImportSettings(size=samples.SIZE, fractions=Fractions(*samples.SHARES))
            )
            print(f"pneumo data import of the {len(dataset.rows)} enlarged files: {time.perf_counter() - began:.1f} s")
        table = samples.write_table(dataset, raw)
        if options.only != "start":
            images_per_second(dataset, table, folder, options.turns, options.network)
        if options.only != "rate":
            start_up(dataset, folder, max(1, options.turns - 1))


if __name__ == "__main__":
    main(sys.argv[1:])
