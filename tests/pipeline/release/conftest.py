"""A data set on which a network that looks at brightness is good, and bundles of such networks."""

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from pneumo.pipeline.data import audit, manifest
from pneumo.pipeline.data.audit import AuditReport
from pneumo.pipeline.data.manifest import Dataset, DatasetInfo, Row, Split
from pneumo.pipeline.export.graph_outputs import make_reference, run_graph
from pneumo.serving.drift.samples import REFERENCE
from pneumo.serving.images.preparation import Preparation, Storage, encode_png
from pneumo.serving.images.types import Fit
from pneumo.serving.model.bundle import EMBEDDING_SPACE, MODEL, Bundle, seal_bundle
from pneumo.serving.model.outlier_score import OutlierScorer
from tests.support import bundles as _made

make_bundle, make_network = _made.make_bundle, _made.make_network

SIDE = 16
PREPARATION = Preparation(size=SIDE, height=SIDE, width=SIDE, channels=1)

MakeDataset = Callable[..., Dataset]
MakeBundle = Callable[..., Bundle]


def write_dataset(
    folder: Path,
    *,
    test: int = 400,
    seed: int = 0,
    brighter: float = 0.0,
    each: int = 1,
    classes: tuple[str, ...] = ("NORMAL", "PNEUMONIA"),
    signal: float = 60.0,
    groups: bool = False,
) -> Dataset:
    """Images whose brightness tells the class, but for some; `each` of a patient, and `brighter` by gray levels.

    The classes differ by `signal` gray levels; with `groups` every third image is of the group `view: lateral`.
    """
    random = np.random.default_rng(seed)
    rows = []
    for number in range(test + 40):
        split = (
            Split.TEST
            if number < test
            else Split.TRAIN
            if number // (1 if each == 1 else 2 * each) % 2
            else Split.VALIDATION
        )
        label = number % (2 * len(classes)) // 2
        level = 90 + signal * label + random.normal(0, 22) + brighter
        pixels = np.clip(random.normal(level, 25, (SIDE, SIDE)), 0, 255).astype(np.uint8)
        png = encode_png(pixels)
        name = f"images/{number:04d}.png"
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(png)
        digest = hashlib.sha256(png).hexdigest()
        rows.append(
            Row(
                name,
                classes[label],
                split,
                f"person{number // (2 * each)}-{label}" if each > 1 else f"person{number}",
                name,
                digest,
                SIDE,
                SIDE,
                {"view": "lateral" if number % 3 == 0 else "frontal"} if groups else {},
            )
        )
    digests = {row.image: row.sha256 for row in rows}
    info = DatasetInfo(
        classes=list(classes),
        counts={},
        patients={},
        size=SIDE,
        fit=Fit.SQUASH,
        split={},
        source="synthetic",
        skipped=[],
        fingerprint=manifest.compute_fingerprint(rows, Storage(size=SIDE), digests),
    )
    manifest.write_dataset(folder, rows, info, digests)
    return manifest.read_dataset(folder)


def brightness(*, blind: bool = False, noise: float = 0.0, seed: int = 0) -> bytes:
    """A network whose logit is the mean brightness, a little disturbed by noise; a blind one sees nothing but noise."""
    model = onnx.load_from_string(make_network(1, 2, 0, bright=True))
    random = np.random.default_rng(seed)
    kernel = np.zeros((6, 1, 3, 3), dtype=np.float32)
    kernel[:, 0, 1, 1] = 1  # one channel sees the mean, the others differences of neighbours, which tell nothing
    kernel[1:] = random.normal(0, 1, (5, 1, 3, 3))
    kernel[1:] -= kernel[1:].mean(axis=(2, 3), keepdims=True)
    head = np.zeros((6, 2), dtype=np.float32)
    head[0, 1] = 0 if blind else 20
    head[1:, 1] = (4 if blind else noise) * random.choice([-1, 1], 5)
    weights = {"kernel": kernel, "head": head, "bias": np.array([0, -20 * 120 / 255], dtype=np.float32)}
    for tensor in model.graph.initializer:
        tensor.CopyFrom(numpy_helper.from_array(weights[tensor.name], tensor.name))
    return model.SerializeToString()


@pytest.fixture(scope="session")
def bright(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """400 test images of 400 patients. Tests only read it."""
    return write_dataset(tmp_path_factory.mktemp("bright") / "data")


@pytest.fixture(scope="session")
def audited(bright: Dataset) -> AuditReport:
    """The audit of `bright`."""
    return audit.audit(bright, workers=1)


@pytest.fixture
def bundle_of(tmp_path: Path) -> MakeBundle:
    """`bundle_of(dataset, version, blind=..., noise=..., threshold=..., ...)`: a bundle of a brightness network."""

    def make(
        dataset: Dataset,
        version: str,
        *,
        blind: bool = False,
        noise: float = 0.0,
        threshold: float = 0.5,
        **changes: Any,
    ) -> Bundle:
        given: dict[str, Any] = {
            "preparation": PREPARATION,
            "data_fingerprint": dataset.info.fingerprint,
            "thresholds": {"default": threshold},
            "temperature": 1.0,
        }
        network = brightness(blind=blind, noise=noise, seed=int(version))
        return make_bundle(tmp_path / f"bundle{version}", network=network, version=version, **(given | changes))

    return make


@pytest.fixture
def base(bright: Dataset, bundle_of: MakeBundle) -> Bundle:
    """A bundle with the reference that an export writes."""
    bundle = bundle_of(bright, "1")
    outputs = run_graph(bundle.read(MODEL), bright, bright.rows, bundle.info.preparation)
    scorer = OutlierScorer.from_bytes(bundle.read(EMBEDDING_SPACE))
    reference = make_reference([outputs], scorer, 1, bundle.info.temperature)
    reference.assign(split="validation").to_parquet(bundle.folder / REFERENCE, index=False)
    seal_bundle(bundle.folder, bundle.info)
    return Bundle.open(bundle.folder)


@pytest.fixture(scope="session")
def site(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """160 images of 80 patients, two of each, in two groups. Tests only read it."""
    folder = tmp_path_factory.mktemp("site") / "elsewhere"
    return write_dataset(folder, test=120, seed=5, brighter=45, each=2, groups=True)
