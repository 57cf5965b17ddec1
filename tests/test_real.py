"""The loop on real chest X-rays."""

import json
import tarfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest

from pneumo.pipeline.project.demo import serve_once
from pneumo.serving.images.preparation import encode_png
from tests.support.paths import ROOT

if TYPE_CHECKING:
    from tests.conftest import Outcome


@dataclass(frozen=True)
class Known:
    """A real data set and what a short training reaches on it."""

    file: str
    options: tuple[str, ...]
    config: str
    epochs: int
    auroc: float
    most: int | None = None

    def source(self, folder: Path, own: Path) -> Path:
        """Return the file, or a copy with the first `most` training images in a folder of one's own."""
        if self.most is None:
            return folder / self.file
        with np.load(folder / self.file) as arrays:
            np.savez(
                own / self.file,
                **{name: each[: self.most] if name.startswith("train") else each for name, each in arrays.items()},
            )
        return own / self.file

    def read_image(self, folder: Path) -> tuple[str, bytes]:
        """Return the name and the bytes of an image as it was before the import."""
        if self.file.endswith(".npz"):
            with np.load(folder / self.file) as arrays:
                return "train_00000.png", encode_png(arrays["train_images"][0])
        with tarfile.open(folder / self.file) as tar:
            member = next(item for item in tar if "PNEUMONIA" in item.name and item.isfile())
            content = tar.extractfile(member)
            assert content is not None
            return Path(member.name).name, content.read()


SMALL = Known("pneumoniamnist_28_trainval.npz", ("--size", "28"), "smoke", 4, 0.95, most=1400)
LARGE = Known("chest_xray_224_train.tar", (), "efficientnet_lite0", 1, 0.985)
"""One epoch of fine-tuning, a quarter of an hour; docs/benchmarks.md has the figures of the whole config."""


@pytest.mark.real
@pytest.mark.parametrize("known", [SMALL, pytest.param(LARGE, marks=pytest.mark.lengthy)], ids=["28", "224"])
def test_from_real_images_to_a_served_prediction(
    pneumo: Callable[..., "Outcome"], real_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, known: Known
) -> None:
    monkeypatch.chdir(tmp_path)

    assert pneumo("data", "import", known.source(real_data, tmp_path), *known.options).code == 0
    checked = pneumo("data", "check", "--json")
    assert checked.code == 0, checked.out[-2000:]
    config = ROOT / "ludwig_configs" / f"{known.config}.yaml"
    trained = pneumo("train", config, "-o", f"trainer.epochs={known.epochs}", "--json")
    assert trained.code == 0, trained.err
    result = json.loads(trained.out)
    auroc = result["metrics"]["validation"]["metrics"]["auroc"]
    print(f"validation AUROC {auroc['value']:.4f} ({auroc['low']:.4f} to {auroc['high']:.4f})")
    assert auroc["value"] >= known.auroc
    assert pneumo("promote", result["run"]).code == 0

    name, content = known.read_image(real_data)
    image = tmp_path / name
    image.write_bytes(content)
    (served,) = serve_once(Path("models"), image)["predictions"]
    (offline,) = json.loads(pneumo("predict", image, "--json").out)["predictions"]
    assert served["probability"] == pytest.approx(offline["probability"], abs=1e-6)
    assert served["in_distribution"] in (True, False)
