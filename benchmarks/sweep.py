"""The same sweep with `pneumo sweep` and with `ludwig hyperopt`, as a ratio of wall times measured in one run.

Both search the same space with the same config file, trials, epochs and seed, random search, one core a trial and as
many trials at once as there are cores; each is a process of its own, from its start to its end. The share of wall time
that is training is the sum of the trials' epochs over wall time and trials at once.

With `--asha`: the best validation value over time of ASHA and of FIFO, with the same time budget.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import yaml

from pneumo.pipeline.data import importer, manifest, phantom
from pneumo.serving.contracts.cores import available_cores

CONFIG = Path(__file__).parent.parent / "ludwig_configs" / "smoke.yaml"
SMALLEST = 32
"""Smallest side of a phantom in pixels."""
SPACE = {
    "trainer.learning_rate_scheduler.max_lr": {"space": "loguniform", "lower": 0.0003, "upper": 0.03},
    "trainer.optimizer.weight_decay": {"space": "loguniform", "lower": 0.0001, "upper": 0.1},
    "image.encoder.fc_layers": {
        "space": "choice",
        "categories": [[{"output_size": 32, "dropout": 0.2}], [{"output_size": 64, "dropout": 0.4}]],
    },
}


def config(size: int, trials: int, epochs: int, scheduler: str = "fifo") -> dict[str, object]:
    """The small CNN with a space; both tools take it as it is."""
    asked = yaml.safe_load(CONFIG.read_text(encoding="utf-8"))
    asked["input_features"][0]["preprocessing"] |= {"height": size, "width": size}
    asked["trainer"] |= {
        "epochs": epochs,
        "batch_size": 64,
        "eval_batch_size": 256,
        "evaluate_training_set": False,
        "validation_metric": "roc_auc",
        "validation_field": "label",
    }
    asked["hyperopt"] = {
        "goal": "maximize",
        "metric": "roc_auc",
        "output_feature": "label",
        "parameters": SPACE,
        "search_alg": {"type": "variant_generator"},
        "executor": {
            "num_samples": trials,
            "cpu_resources_per_trial": 1,
            "max_concurrent_trials": available_cores(),
            "scheduler": {"type": scheduler},
        },
    }
    return asked


def timed(command: Sequence[str], folder: Path) -> float:
    """Wall seconds of a command."""
    began = time.perf_counter()
    done = subprocess.run(
        command, cwd=folder, capture_output=True, text=True, check=False, env=os.environ | {"RAY_worker_niceness": "0"}
    )
    if done.returncode:
        raise SystemExit(f"{' '.join(command)} failed:\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}")
    return time.perf_counter() - began


def pneumo(file: Path, data: Path, folder: Path, *more: str) -> tuple[float, dict[str, object]]:
    """`pneumo sweep`: its wall seconds and its record."""
    command = [
        sys.executable,
        "-c",
        "from pneumo.pipeline.cli import main; main()",
        "sweep",
        str(file),
        "--data",
        str(data),
    ]
    seconds = timed([*command, "--sweeps-dir", str(folder / "sweeps"), *more], folder)
    (found,) = sorted((folder / "sweeps").glob("*/sweep.json"))[-1:]
    record: dict[str, object] = json.loads(found.read_text(encoding="utf-8"))
    return seconds, record


def ludwig(file: Path, data: Path, folder: Path) -> float:
    """`ludwig hyperopt`: its wall seconds."""
    command = [sys.executable, "-c", "from ludwig.cli import main; main()", "hyperopt", "-c", str(file)]
    command += ["--dataset", str(data / manifest.MANIFEST), "--output_directory", str(folder / "results")]
    return timed([*command, "--skip_save_processed_input"], folder)


def training_seconds(record: dict[str, object]) -> float:
    return sum(trial["training"] for trial in record["trials"])  # type: ignore[attr-defined]


def best(record: dict[str, object]) -> float:
    return max(entry["value"] for trial in record["trials"] for entry in trial["rounds"])  # type: ignore[attr-defined]


def compare(data: Path, size: int, folder: Path, trials: Sequence[int], epochs: int) -> None:
    """Print wall times, their ratio, and the share of ours that is training."""
    print(
        f"{'trials':>6}{'ludwig, s':>11}{'pneumo, s':>11}{'ratio':>8}{'training share':>16}{'best AUROC':>12}",
        flush=True,
    )
    for number in trials:
        place = folder / str(number)
        place.mkdir()
        file = place / "small.yaml"
        file.write_text(yaml.safe_dump(config(size, number, epochs)), encoding="utf-8")
        ours, record = pneumo(file, data, place)
        theirs = ludwig(file, data, place)
        share = training_seconds(record) / (ours * available_cores())
        print(
            f"{number:>6}{theirs:>11.1f}{ours:>11.1f}{ours / theirs:>8.2f}{share:>16.2f}{best(record):>12.4f}",
            flush=True,
        )


def curves(data: Path, size: int, folder: Path, epochs: int, budget: int) -> None:
    """Print the best value so far by second, of FIFO and ASHA with the same time budget."""
    print(f"best validation AUROC after so many seconds of at most {budget}, trials of {epochs} epochs")
    for scheduler in ("fifo", "async_hyperband"):
        place = folder / scheduler
        place.mkdir()
        file = place / "small.yaml"
        file.write_text(yaml.safe_dump(config(size, 1000, epochs, scheduler)), encoding="utf-8")
        _, record = pneumo(file, data, place, "--time-budget", str(budget))
        trials: list[dict[str, object]] = record["trials"]  # type: ignore[assignment]
        rounds = sorted((entry["at"], entry["value"]) for trial in trials for entry in trial["rounds"])  # type: ignore[attr-defined]
        marks = [budget * part / 10 for part in range(3, 11)]
        values = [max((value for at, value in rounds if at <= mark), default=float("nan")) for mark in marks]
        cells = "".join(f"{mark:>5.0f}s {value:.4f}" for mark, value in zip(marks, values, strict=True))
        print(f"{scheduler:<16}{len(trials):>4} trials{cells}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--archive", type=Path, help="PneumoniaMNIST's .npz; phantoms of 32 pixels without it")
    parser.add_argument("--trials", type=int, nargs="+", default=[4, 16])
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--asha", type=int, metavar="SECONDS", help="instead: ASHA against FIFO in so many seconds")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if options.archive:
            importer.import_dataset(
                options.archive, folder / "data", importer.ImportSettings(size=28, split=importer.SplitMethod.GIVEN)
            )
        else:
            phantom.write_phantoms(folder / "raw", phantom.Recipe(images=2000, seed=0, size=SMALLEST))
            importer.import_dataset(folder / "raw", folder / "data", importer.ImportSettings(size=SMALLEST))
        size = 28 if options.archive else SMALLEST
        if options.asha:
            curves(folder / "data", size, folder, options.epochs, options.asha)
        else:
            compare(folder / "data", size, folder, options.trials, options.epochs)


if __name__ == "__main__":
    main()
