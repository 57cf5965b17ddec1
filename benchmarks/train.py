"""Images a second in training, as ratios measured in one run: pneumo, Ludwig twice, and a plain PyTorch loop.

All four train the same network on the same images with the same batches, optimizer and number of threads:

- pneumo: what `pneumo train` does, from an imported data set;
- Ludwig's defaults: `ludwig train` with images read lazily, the training set evaluated, evaluation batches tuned;
- Ludwig at its best: `mode: eager`, `evaluate_training_set: false`, `eval_batch_size` set;
- a plain loop over Ludwig's own network: bytes in memory, channels last, fused AdamW, gradients clipped as Ludwig does,
  and after each epoch an evaluation and a checkpoint.

Ludwig is given the JPEG files that pneumo imported, 224 pixels a side, and networks take them smaller, as is usual.
With `--originals 1500x1200` they are enlarged before, to what the file of a film may measure, and the import is timed.

Two rates: of the training steps alone, from batch to optimizer, without the first of each training; and of whole
epochs, with reading, evaluation and checkpoints. What comes before the first epoch (reading all images, building the
network, tuning the evaluation batch) is a column of its own. All run in turns, and the table has medians, so that a
busy machine hits them alike. Start-up is measured apart: from command to first step.
"""

import argparse
import contextlib
import csv
import dataclasses
import functools
import io
import logging
import os
import shutil
import statistics
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from operator import attrgetter
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from pipeline import config, engine, training
from pipeline.config import Experiment
from pipeline.data import importing, manifest, phantom
from pipeline.data.manifest import Dataset, Row, Split
from pipeline.data.splits import Fractions

CONFIGS = Path(__file__).parent.parent / "ludwig_configs"
SMALL = "{type: backbone, network: lcnet_050, dropout: 0.0}"
NETWORKS = {
    "small CNN (timm's lcnet_050 at 96 pixels)": (
        "efficientnet_lite0.yaml",
        (f"input_features.0.encoder={SMALL}", *(f"input_features.0.preprocessing.{k}=96" for k in ("height", "width"))),
    ),
    "EfficientNet-Lite0 at 128 pixels": ("efficientnet_lite0.yaml", ()),
}
BATCH = 32
EPOCHS = 2
ALIKE = (
    "input_features.0.augmentation=[]",
    "trainer.early_stop=-1",
    f"trainer.epochs={EPOCHS}",
    f"trainer.batch_size={BATCH}",
    f"trainer.eval_batch_size={BATCH}",
)
SIZE = 224
"""Pixels of the stored images."""
SHARES = (0.75, 0.125, 0.125)
"""Of the images in training, validation and test."""
TABLE = "ludwig.csv"
"""What Ludwig reads, beside the manifest: the same rows with the files as they came."""
CLIP = 0.5
"""Ludwig's default limit of the gradient's norm."""


@dataclasses.dataclass
class Measured:
    """One training.

    Attributes:
        images: Shown in steps, all but the first.
        steps: Seconds of those steps.
        shown: Images of whole epochs.
        epochs: Seconds of whole epochs: steps, reading, evaluation, checkpoints.
        evaluation: Seconds of evaluation in them.
        before: Seconds from the call to the first epoch.
    """

    images: int = 0
    steps: float = 0.0
    shown: int = 0
    epochs: float = 0.0
    evaluation: float = 0.0
    before: float = 0.0

    @property
    def rate(self) -> float:
        """Images a second in steps."""
        return self.images / self.steps

    @property
    def whole_rate(self) -> float:
        """Images a second in whole epochs."""
        return self.shown / self.epochs


class Clock:
    """Wall time, or the processor time of this process, which other people's work disturbs less."""

    read = staticmethod(time.perf_counter)


class Meter:
    """Times Ludwig's trainer from outside: batches and steps, evaluation rounds, checkpoints."""

    def __init__(self) -> None:
        from ludwig.trainers.trainer import Trainer
        from ludwig.utils.checkpoint_utils import CheckpointManager

        self.reset()
        for name in ("train_step", "_train_loop", "run_evaluation", "_has_nan_or_inf_weights"):
            setattr(Trainer, name, self.watched(getattr(Trainer, name), getattr(self, name.strip("_"))))
        CheckpointManager.save = self.watched(CheckpointManager.save, self.save)  # the latest and the best

    def reset(self) -> None:
        """Forget the training before."""
        self.result = Measured()
        self.first_step = self.first_epoch = self.end = 0.0
        self.aside: list[tuple[float, float]] = []

    @staticmethod
    def watched(method: Callable[..., Any], note: Callable[..., None]) -> Callable[..., Any]:
        @functools.wraps(method)
        def watching(*arguments: Any, **options: Any) -> Any:
            began = Clock.read()
            result = method(*arguments, **options)
            note(began, Clock.read(), *arguments[1:])
            return result

        return watching

    def train_step(self, began: float, ended: float, inputs: Any, targets: dict[str, Any], *_: Any) -> None:
        images = len(next(iter(targets.values())))
        self.result.shown += images
        if self.first_step:
            self.result.images += images
        else:
            self.first_step = ended

    def run_evaluation(self, began: float, ended: float, *_: Any) -> None:
        self.result.evaluation += ended - began
        self.aside.append((began, ended))

    has_nan_or_inf_weights = run_evaluation  # Ludwig looks once a round

    def save(self, began: float, ended: float, *_: Any) -> None:
        self.aside.append((began, ended))
        self.end = ended

    def train_loop(self, began: float, ended: float, *_: Any) -> None:
        """An epoch: what was not evaluation or a checkpoint is steps; Ludwig makes another checkpoint after it."""
        self.first_epoch = self.first_epoch or began
        self.end = ended
        aside = sum(end - start for start, end in self.aside if start >= began)
        self.result.steps += ended - max(began, self.first_step) - aside

    def measure(self, train: Callable[[], Any]) -> Measured:
        self.reset()
        began = Clock.read()
        self.returned = train()
        self.result.before = self.first_epoch - began
        self.result.epochs = self.end - self.first_epoch
        return self.result


def ludwig_config(experiment: Experiment, *, best: bool) -> dict[str, Any]:
    """The same experiment without what pneumo's configs and defaults decide, or with the best that Ludwig offers."""
    asked = experiment.document.override(()).data
    asked.pop("decisions", None)
    asked["backend"] = {"type": "local"}
    if not best:
        del asked["input_features"][0]["preprocessing"]["mode"]
        del asked["trainer"]["eval_batch_size"], asked["trainer"]["evaluate_training_set"]
    return asked


def train_with_ludwig(asked: dict[str, Any], table: Path, folder: Path) -> Any:
    """What `ludwig train` does, quietly; images are paths in a table."""
    from ludwig.api import LudwigModel

    with contextlib.redirect_stdout(io.StringIO()):
        model = LudwigModel(asked, logging_level=logging.ERROR)
        model.train(
            dataset=str(table),
            output_directory=str(folder),
            skip_save_processed_input=True,  # it would lie beside the images and change the next turn
        )
    shutil.rmtree(folder, ignore_errors=True)
    return model


def plain_loop(network: Any, dataset: Dataset, experiment: Experiment, folder: Path) -> Measured:
    """The loop that a person would write who knows torch's fast paths."""
    import torch

    from pipeline.training.images import read_images

    result = Measured()
    called = Clock.read()
    preparation = experiment.preparation(size=dataset.info.size, fit=dataset.info.fit.value)
    positive = experiment.positive
    sets = []
    for split in (Split.TRAIN, Split.VALIDATION):
        rows = dataset.of(split)
        pixels = np.stack(read_images(dataset, rows, preparation)).transpose(0, 3, 1, 2)
        labels = torch.tensor([row.label == positive for row in rows], dtype=torch.float32)
        sets.append((torch.from_numpy(np.ascontiguousarray(pixels)), labels))
    (images, labels), (held_out, _) = sets
    network = network.to(memory_format=torch.channels_last)
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-3, weight_decay=0.01, fused=True)
    steps = EPOCHS * -(-len(images) // BATCH)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=1e-3, total_steps=steps)

    def logits(pixels: Any) -> Any:
        inputs = pixels.float().div_(255)
        return network({"image": inputs})["label::logits"].reshape(-1)

    began = Clock.read()
    result.before = began - called
    for epoch in range(EPOCHS):
        network.train()
        since = Clock.read()
        for number, chosen in enumerate(torch.randperm(len(images)).split(BATCH)):
            loss = torch.nn.functional.binary_cross_entropy_with_logits(logits(images[chosen]), labels[chosen])
            loss.backward()
            torch.nn.utils.clip_grad_norm_(network.parameters(), CLIP)
            optimizer.step()
            schedule.step()
            optimizer.zero_grad()
            result.shown += len(chosen)
            if epoch == number == 0:
                since = Clock.read()
            else:
                result.images += len(chosen)
        evaluating = Clock.read()
        result.steps += evaluating - since
        network.eval()
        with torch.inference_mode():
            for pixels in held_out.split(BATCH):
                logits(pixels)
        result.evaluation += Clock.read() - evaluating
        torch.save({"weights": network.state_dict(), "optimizer": optimizer.state_dict()}, folder / "checkpoint.pt")
    result.epochs = Clock.read() - began
    return result


def images_per_second(dataset: Dataset, table: Path, folder: Path, turns: int, start: str) -> None:
    """Measure all four on the networks whose names begin so and print the tables."""
    engine.load()
    import torch

    if Clock.read is time.process_time:
        torch.set_num_threads(1)  # threads that wait for each other count as busy
    meter = Meter()
    kind = "processor time" if Clock.read is time.process_time else "wall time"
    print(
        f"{len(dataset.of(Split.TRAIN))} training and {len(dataset.of(Split.VALIDATION))} validation images, batch "
        f"{BATCH}, {EPOCHS} epochs, {turns} turns, {torch.get_num_threads()} threads, {kind}\n",
        flush=True,
    )
    for name, (file, overrides) in NETWORKS.items():
        if not name.startswith(start):
            continue
        experiment = config.load(CONFIGS / file, (*ALIKE, *overrides))
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
        yield contender, meter.measure(lambda asked=asked: train_with_ludwig(asked, table, folder / "ludwig"))
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
        from pipeline.cli import main

        load = engine.load

        def load_and_hook(*arguments: Any, **options: Any) -> Any:
            module = load(*arguments, **options)
            from ludwig.trainers.trainer import Trainer

            Trainer.train_step = announce
            return module

        engine.load = load_and_hook
        sys.argv = ["pneumo", "train", str(asked), "--data", str(data), "--runs-dir", str(asked.parent / "runs")]
        main()
    from ludwig.cli import main as ludwig_main
    from ludwig.trainers.trainer import Trainer

    Trainer.train_step = announce
    results = str(asked.parent / "results")
    sys.argv = ["ludwig", "train", "-c", str(asked), "--dataset", str(data / TABLE), "--output_directory", results]
    sys.argv += ["--skip_save_processed_input"]
    ludwig_main()


def start_up(dataset: Dataset, folder: Path, turns: int) -> None:
    """Measure the time from the command to the first step and print the table."""
    import yaml

    file, overrides = next(iter(NETWORKS.values()))
    experiment = config.load(CONFIGS / file, (*ALIKE, *overrides))
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


def share_of(whole: Dataset, folder: Path, images: int) -> Dataset:
    """The first images of a data set, classes alike: three quarters to train on, the rest for validation and test."""
    rows: list[Row] = []
    for split, share in zip((Split.TRAIN, Split.VALIDATION, Split.TEST), SHARES, strict=True):
        for label in whole.info.classes:
            chosen = [row for row in whole.of(split) if row.label == label]
            rows += chosen[: int(images * share / len(whole.info.classes))]
    for row in rows:
        target = folder / row.image
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(whole.path(row), target)
    manifest.write(folder, rows, whole.info)
    return manifest.read(folder)


def enlarge(dataset: Dataset, raw: Path, folder: Path, size: tuple[int, int]) -> Path:
    """Write the files of a data set as JPEGs of another width and height, in pixels."""
    for row in dataset.rows:
        target = folder / row.source
        target.parent.mkdir(parents=True, exist_ok=True)
        with Image.open(raw / row.source) as image:
            image.convert("L").resize(size, Image.Resampling.BICUBIC).save(target, quality=90)
    return folder


def write_table(dataset: Dataset, raw: Path) -> Path:
    """Write what Ludwig reads of a data set: the files as they came."""
    path = dataset.folder / TABLE
    with path.open("w", newline="", encoding="utf-8") as file:
        table = csv.writer(file)
        table.writerow(["image", "label", "split"])
        table.writerows([raw / row.source, row.label, int(row.split)] for row in dataset.rows)
    return path


def jpegs(archive: Path | None, folder: Path, images: int) -> Path:
    """A folder of JPEG files of SIZE pixels: those of a tar archive, or phantoms."""
    if archive is not None:
        with tarfile.open(archive) as file:
            file.extractall(folder, filter="data")
        return folder
    phantom.write(folder, images=images + images // 4, seed=0, size=SIZE)
    for path in sorted(folder.rglob("*.png")):
        with Image.open(path) as image:
            image.convert("L").save(path.with_suffix(".jpeg"), quality=90)
        path.unlink()
    return folder


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
        raw = jpegs(options.archive, folder / "raw", options.images)
        whole = importing.import_dataset(raw, folder / "imported", size=SIZE)
        dataset = share_of(whole, folder / "data", options.images)
        if options.originals:
            raw = enlarge(dataset, raw, folder / "originals", options.originals)
            began = time.perf_counter()
            dataset = importing.import_dataset(raw, folder / "again", size=SIZE, fractions=Fractions(*SHARES))
            print(f"pneumo data import of the {len(dataset.rows)} enlarged files: {time.perf_counter() - began:.1f} s")
        table = write_table(dataset, raw)
        if options.only != "start":
            images_per_second(dataset, table, folder, options.turns, options.network)
        if options.only != "rate":
            start_up(dataset, folder, max(1, options.turns - 1))


if __name__ == "__main__":
    main(sys.argv[1:])
