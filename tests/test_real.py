"""The loop on real chest X-rays."""

import json
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from pneumo.pipeline.project.demo import serve_once
from tests.support.paths import ROOT

if TYPE_CHECKING:
    from tests.conftest import Outcome

CONFIG = ROOT / "ludwig_configs" / "efficientnet_lite0.yaml"


@pytest.mark.real
def test_from_real_images_to_a_served_prediction(
    pneumo: Callable[..., "Outcome"], real_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One epoch of fine-tuning; docs/benchmarks.md has the figures of the whole config."""
    monkeypatch.chdir(tmp_path)
    archive = real_data / "chest_xray_224_train.tar"

    assert pneumo("data", "import", archive).code == 0
    checked = pneumo("data", "check", "--json")
    assert checked.code == 0, checked.out[-2000:]
    trained = pneumo("train", CONFIG, "-o", "trainer.epochs=1", "--json")
    assert trained.code == 0, trained.err
    result = json.loads(trained.out)
    auroc = result["metrics"]["validation"]["metrics"]["auroc"]
    print(f"validation AUROC {auroc['value']:.4f} ({auroc['low']:.4f} to {auroc['high']:.4f})")
    assert auroc["value"] >= 0.985
    assert pneumo("promote", result["run"]).code == 0

    with tarfile.open(archive) as tar:
        member = next(item for item in tar if "PNEUMONIA" in item.name and item.isfile())
        file = tar.extractfile(member)
        assert file is not None
        image = tmp_path / Path(member.name).name
        image.write_bytes(file.read())
    (served,) = serve_once(Path("models"), image)["predictions"]
    (offline,) = json.loads(pneumo("predict", image, "--json").out)["predictions"]
    assert served["probability"] == pytest.approx(offline["probability"], abs=1e-6)
    assert served["in_distribution"] in (True, False)
