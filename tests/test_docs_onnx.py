"""The code of docs/howto/onnx.md, run as it stands, answers as the service does."""

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from pneumo.pipeline.decisions import Decisions
from pneumo.pipeline.export.bundle_export import describe_graph
from pneumo.pipeline.export.int8.acceptance import ClassDecisions
from pneumo.serving.contracts.settings import Settings
from pneumo.serving.http.app import create_app
from pneumo.serving.images.preparation import Preparation
from pneumo.serving.images.types import DECODING_RULES, Decode, Fit
from pneumo.serving.model.bundle import Bundle
from pneumo.serving.model.calibration import build_prediction_sets
from pneumo.serving.model.predictor import Predictor
from tests.support.bundles import make_bundle, make_network
from tests.support.paths import ROOT
from tests.support.servers import served
from tests.support.waiting import until
from tests.test_docs import blocks

ALONE, PROTOCOL = blocks(ROOT / "docs" / "howto" / "onnx.md", "python")
TEMPERATURE = 8.0
"""High, so that small changes of the input are seen."""
LIMITS = [0.45, 0.6, 0.7]
TWO, THREE = ["NORMAL", "PNEUMONIA"], ["BACTERIA", "NORMAL", "VIRUS"]


def make_described_bundle(folder: Path, preparation: Preparation, classes: list[str] = TWO) -> Bundle:
    positive = classes[1] if len(classes) == 2 else None
    threshold = None if positive is None else 0.4
    decisions = Decisions(
        temperature=TEMPERATURE,
        threshold=threshold,
        policy="max balanced accuracy",
        conformal_level=0.9,
        conformal_limit=LIMITS[: len(classes)],
        outlier_quantile=0.99,
        fitted_on="validation",
        images=100,
    )
    network = make_network(preparation.channels, len(classes), 3)
    return make_bundle(
        folder,
        network=describe_graph(network, preparation, ClassDecisions(classes, positive, decisions)),
        preparation=preparation,
        classes=classes,
        positive_class=positive,
        temperature=TEMPERATURE,
        thresholds={} if threshold is None else {"default": threshold},
        conformal={"level": 0.9, "limit": LIMITS[: len(classes)]},
    )


def make_film(width: int, height: int, kind: str = "JPEG", mode: str = "L", turn: int | None = None) -> bytes:
    random = np.random.default_rng(width)
    coarse = random.integers(0, 256, (height // 9 + 1, width // 9 + 1, 3 if mode == "RGB" else 1)).astype(np.uint8)
    image = Image.fromarray(coarse.squeeze()).resize((width, height), Image.Resampling.BICUBIC)
    exif = Image.Exif()
    if turn:
        exif[0x112] = turn
    buffer = io.BytesIO()
    image.save(buffer, kind, exif=exif)
    return buffer.getvalue()


SCALED = Preparation(size=64, height=28, width=40, channels=3, decode=Decode.SCALED, rules=DECODING_RULES)
FILMS = {
    "large JPEG": make_film(1501, 1203),
    "large JPEG in colour": make_film(1203, 1501, mode="RGB"),
    "large JPEG on its side": make_film(1501, 1203, turn=6),
    "mirrored JPEG": make_film(700, 203, turn=7),
    "small JPEG": make_film(50, 41),
    "PNG": make_film(500, 411, "PNG"),
    "PNG in colour": make_film(300, 411, "PNG", "RGB"),
}


@pytest.mark.parametrize("film", FILMS)
@pytest.mark.parametrize(
    ("preparation", "classes"),
    [
        (SCALED, TWO),
        (SCALED.model_copy(update={"decode": Decode.FULL, "channels": 1, "size": 48}), THREE),
        (SCALED.model_copy(update={"size": 40, "height": 40, "rules": 1}), TWO),
    ],
)
def test_the_lines_of_the_page_give_the_probabilities_of_pneumo(
    film: str, preparation: Preparation, classes: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bundle = make_described_bundle(tmp_path / "bundle", preparation, classes)
    monkeypatch.chdir(bundle.folder)
    (bundle.folder / "chest.jpeg").write_bytes(FILMS[film])
    names: dict[str, Any] = {}

    exec(ALONE, names)

    expected = Predictor(bundle, threads=1).predict_bytes(FILMS[film]).probabilities
    assert names["probabilities"] == pytest.approx(expected, abs=1e-6)
    sets = build_prediction_sets(np.array([list(expected.values())]), bundle.info.conformal.limit)
    assert names["prediction_set"] == [name for name, held in zip(classes, sets[0], strict=True) if held]


@pytest.mark.parametrize(
    ("step", "other"),
    [
        (".resize((side, side), Image.Resampling.BILINEAR, box=decoded[1] if decoded else None)", ""),
        ("BILINEAR)", "NEAREST)"),
        ("BILINEAR, box", "BOX, box"),
        ("ImageOps.exif_transpose(stored)", "ImageOps.exif_transpose(stored).convert('F')"),
        ('image.draft("L", (side, side))', "None"),
        ('.astype(float) / model["temperature"]', ""),
        (" / 255", " / 256"),
        ("ImageOps.exif_transpose(stored)", "stored"),
    ],
)
def test_each_step_of_the_page_changes_the_answer(
    step: str, other: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bundle = make_described_bundle(tmp_path / "bundle", SCALED)
    monkeypatch.chdir(bundle.folder)
    (bundle.folder / "chest.jpeg").write_bytes(FILMS["large JPEG on its side"])
    names: dict[str, Any] = {}
    assert ALONE.count(step) == 1
    exec(ALONE.replace(step, other), names)
    expected = Predictor(bundle, threads=1).predict_bytes(FILMS["large JPEG on its side"]).probabilities
    assert names["probabilities"] != pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize(
    ("mode", "fit"), [("L", Fit.PAD), ("RGB", Fit.CROP), ("RGBA", Fit.SQUASH), ("I;16", Fit.SQUASH)]
)
def test_the_lines_of_the_page_refuse_what_they_would_prepare_otherwise(
    mode: str, fit: Fit, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bundle = make_described_bundle(tmp_path / "bundle", SCALED.model_copy(update={"fit": fit}))
    monkeypatch.chdir(bundle.folder)
    Image.new(mode, (30, 20)).save(bundle.folder / "chest.jpeg", "PNG")
    with pytest.raises(AssertionError, match="let pneumo or the service prepare it"):
        exec(ALONE, {})


def test_the_page_and_both_interfaces_of_the_service_agree(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    bundle = make_described_bundle(tmp_path / "bundle", SCALED)
    film = FILMS["large JPEG in colour"]
    monkeypatch.chdir(bundle.folder)
    (bundle.folder / "chest.jpeg").write_bytes(film)
    import urllib.request

    with served(create_app(bundle, Settings(threads=1))) as address:

        def ready() -> bool:
            try:
                urllib.request.urlopen(f"{address}/readyz").close()
            except OSError:
                return False
            return True

        until(ready)
        request = urllib.request.Request(f"{address}/v1/predict", film, {"Content-Type": "image/jpeg"})
        (answer,) = json.load(urllib.request.urlopen(request))["predictions"]
        names: dict[str, Any] = {}
        exec(ALONE, names)
        capsys.readouterr()
        exec(PROTOCOL.replace("http://127.0.0.1:8000", address), names)

    assert names["probabilities"] == pytest.approx(answer["probabilities"], abs=1e-6)
    assert json.loads(capsys.readouterr().out) == pytest.approx(list(answer["probabilities"].values()), abs=1e-6)
