"""A finished run without a training: predictions drawn from a known distribution, small images beside them."""

import hashlib
import json
import shutil
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from pneumo.pipeline.data import manifest
from pneumo.pipeline.data.manifest import DatasetInfo, Row, Split
from pneumo.pipeline.runs.run import Run, RunInfo, Status
from pneumo.serving.images.preparation import Storage, encode_png
from pneumo.serving.images.types import Fit

SynthesiseRun = Callable[..., Run]


def build_run(
    folder: Path,
    classes: tuple[str, ...] = ("NORMAL", "PNEUMONIA"),
    *,
    images: int = 120,
    shift: float = 1.0,
    seed: int = 0,
    splits: tuple[str, ...] = ("train", "validation", "test"),
    groups: bool = False,
    **run_json: Any,
) -> Run:
    """Build a run without a training: predictions are drawn from a known distribution, images are small noise.

    With two classes logits are normal with means -shift and +shift and deviation 1, so that AUROC is Phi(shift sqrt 2).
    Patients have two images each. With `groups` the manifest has `group:kind` (bacteria, virus) of images of the last
    class and `group:source` (IM, NORMAL2-IM) of all others; predictions.parquet has none of it. Further arguments
    replace fields of `run.json`.
    """
    random = np.random.default_rng(seed)
    data = folder / f"data-{seed}-{len(classes)}"
    rows, records = [], []
    for number in range(images):
        patient = number // 2
        split = Split[splits[patient % len(splits)].upper()]
        label = int(random.integers(len(classes)))
        pixels = random.integers(0, 255, (16, 16)).astype(np.uint8)
        png = encode_png(pixels)
        name = f"images/{number:04d}.png"
        if len(classes) == 2:
            logits = [0.0, float(random.normal(shift if label else -shift))]
        else:
            logits = (random.normal(0, 1, len(classes)) + shift * (np.arange(len(classes)) == label)).tolist()
        powers = np.exp(logits)
        digest = hashlib.sha256(png).hexdigest()
        told = {}
        if groups and label == len(classes) - 1:
            told = {"kind": ("bacteria", "virus")[patient // 3 % 2]}
        elif groups:
            told = {"source": ("IM", "NORMAL2-IM")[patient // 3 % 2]}
        rows.append(Row(name, classes[label], split, f"person{patient}", name, digest, 16, 16, told))
        records.append(
            {
                "image": name,
                "split": split.name.lower(),
                "patient": f"person{patient}",
                "label": classes[label],
                "logits": logits,
                "probabilities": (powers / powers.sum()).tolist(),
            }
        )
        (data / name).parent.mkdir(parents=True, exist_ok=True)
        (data / name).write_bytes(png)
    fingerprint = manifest.compute_fingerprint(rows, Storage(size=16), {row.image: row.sha256 for row in rows})
    info = DatasetInfo(
        classes=list(classes),
        counts={},
        patients={},
        size=16,
        fit=Fit.SQUASH,
        split={},
        source="synthetic",
        skipped=[],
        fingerprint=fingerprint,
    )
    manifest.write_dataset(data, rows, info)
    run = Run.create("synthetic", root=folder / "runs", now=datetime(2026, 1, 2, 3, 4, seed % 60, tzinfo=UTC))
    pd.DataFrame(records).to_parquet(run.predictions)
    run.config.write_text("trainer:\n  epochs: 3\n")
    history = [
        {"epoch": epoch, "step": 10 * epoch, "train": {"loss": 1 / epoch}, "validation": {"loss": 1.2 / epoch}}
        for epoch in (1, 2, 3)
    ]
    run.history.write_text(json.dumps(history))
    described: dict[str, Any] = {
        "name": run.name,
        "command": ["pneumo", "train", "synthetic.yaml"],
        "config": "synthetic.yaml",
        "data": str(data),
        "data_fingerprint": fingerprint,
        "classes": list(classes),
        "positive": classes[1] if len(classes) == 2 else None,
        "preparation": {"size": 16, "fit": "squash", "height": 16, "width": 16, "channels": 1},
        "image": "image",
        "label": "label",
        "seed": 42,
        "versions": {"python": "3.12"},
        "git_commit": None,
        "hardware": {"cores": 2},
        "durations": {"train": 61.0},
        "started": datetime(2026, 1, 2, 3, 4, tzinfo=UTC),
        "status": Status.DONE,
        "pid": 1,
    }
    run.save(RunInfo(**(described | run_json)))
    return run


@pytest.fixture
def synthesise_run(tmp_path: Path) -> SynthesiseRun:
    """A function that makes a run: `synthesise_run(classes, images=..., shift=..., seed=...)`, see `build_run`."""
    return partial(build_run, tmp_path)


@pytest.fixture
def page() -> None:
    """Draws reports in a module that leaves that out otherwise (`no_pages`)."""


@pytest.fixture
def no_pages(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Leaves reports of evaluations empty, unless a test asks for `page`: drawing one takes longer than the rest."""
    if "page" not in request.fixturenames:
        monkeypatch.setattr(
            "pneumo.pipeline.evaluation.report.run_report.write_report", lambda path, *_, **__: path.write_text("")
        )


@pytest.fixture
def ready_graph(exported: Path) -> Iterator[None]:
    """Lets an export of the tiny model take the graph that is there already: torch needs seconds to write one."""

    def copy(network: object, preparation: object, path: Path) -> None:
        shutil.copyfile(exported / "model.onnx", path)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("pneumo.pipeline.export.bundle_export.write_graph", copy)
        yield
