"""Service, command line and import see the same pixels of a file, say the same about it, and refuse the same files."""

import io
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from pneumo.pipeline.data import manifest
from pneumo.pipeline.data.importer import ImportSettings, import_dataset
from pneumo.serving.contracts.errors import ImageError, InputError
from pneumo.serving.http.app import create_app
from pneumo.serving.images import decode
from pneumo.serving.images.decode import prepare, read_stored
from pneumo.serving.images.preparation import Preparation, Storage, encode_png, to_input
from pneumo.serving.images.types import DECODING_RULES, Decode, Fit, Gray, Picture
from pneumo.serving.model.bundle import Bundle
from pneumo.serving.model.predictor import Predictor
from tests.support.bundles import make_bundle
from tests.support.dicoms import make_dicom
from tests.support.paths import ROOT

CASES = Path(os.environ.get("PNEUMO_CASES", ROOT.parent / "shared" / "cases" / "images"))
PREPARATION = Preparation(
    size=32, fit=Fit.PAD, decode=Decode.SCALED, rules=DECODING_RULES, height=28, width=28, channels=1
)


def draw(seed: int, width: int = 90, height: int = 70) -> Gray:
    y, x = np.mgrid[:height, :width]
    noise = np.random.default_rng(seed).normal(0, 12, (height, width))
    return np.clip(90 + 60 * np.sin(x / (9 + seed)) + y + noise, 0, 255).astype(np.uint8)


def encode(image: Image.Image, format: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format, **options)
    return buffer.getvalue()


def make_files() -> dict[str, bytes]:
    """One file of each kind that people send, and some that must be refused."""
    gray, deep = Image.fromarray(draw(1)), draw(2).astype(np.uint16) * 16
    turned = Image.Exif()
    turned[0x0112] = 6
    frames = [Image.fromarray(draw(3)), Image.fromarray(draw(4))]
    return {
        "gray.png": encode(gray, "PNG"),
        "colour.jpg": encode(Image.fromarray(draw(5, 900, 700)).convert("RGB"), "JPEG", exif=turned),
        "print.jpg": encode(gray.convert("CMYK"), "JPEG"),
        "deep.png": encode(Image.fromarray(deep), "PNG"),
        "deep.tif": encode(Image.fromarray(deep), "TIFF"),
        "float.tif": encode(Image.fromarray((deep / 4095).astype(np.float32)), "TIFF"),
        "palette.png": encode(gray.convert("P"), "PNG"),
        "see-through.png": encode(gray.convert("LA"), "PNG"),
        "picture.webp": encode(gray.convert("RGB"), "WEBP", lossless=True),
        "picture.bmp": encode(gray, "BMP"),
        "film.dcm": make_dicom(deep, BitsStored=12, WindowCenter=2000, WindowWidth=3000),
        "scan.dcm": make_dicom(deep, BitsStored=12, Modality="CT"),
        "frames.tif": encode(frames[0], "TIFF", save_all=True, append_images=frames[1:]),
        "cut.jpg": encode(gray, "JPEG")[:400],
        "text.png": b"no image",
    } | {path.name: path.read_bytes() for path in sorted(CASES.glob("*"))}


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return make_bundle(tmp_path_factory.mktemp("bundle") / "tiny", preparation=PREPARATION)


def test_service_command_line_and_import_see_the_same_pixels(
    tmp_path: Path, bundle: Bundle, pneumo: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    from fastapi.testclient import TestClient

    from tests.support.waiting import until

    files = make_files()
    source = tmp_path / "source"
    (source / "A").mkdir(parents=True)
    for name, content in files.items():
        (source / "A" / name).write_bytes(content)
    (source / "B").mkdir()
    for seed in range(6):
        (source / "B" / f"{seed}.png").write_bytes(encode(Image.fromarray(draw(20 + seed)), "PNG"))
    settings = ImportSettings(size=32, fit=Fit.PAD, decode=Decode.SCALED)
    data = import_dataset(source, tmp_path / "data", settings, workers=1)
    imported = {Path(row.source).name: row for row in data.rows}
    left_out = {Path(entry["source"]).name: entry["reason"] for entry in data.info.skipped}
    remarks: dict[str, set[str]] = {}

    seen: list[Any] = []
    run = Predictor.run

    def watch(self: Predictor, batch: Any) -> Any:
        seen.append(np.array(batch))
        return run(self, batch)

    monkeypatch.setattr(Predictor, "run", watch)
    by_command = json.loads(pneumo("predict", source / "A", "--model", bundle.folder, "--json").out)
    predicted = {Path(each["filename"]).name: each for each in by_command["predictions"]}
    refused = {Path(each["filename"]).name: each["error"] for each in by_command["errors"]}
    by_name = dict(zip(predicted, np.concatenate(seen)[-len(predicted) :], strict=True))  # after a run to warm up
    with TestClient(create_app(bundle)) as client:
        until(lambda: client.get("/readyz").status_code == 200)
        for name, content in files.items():
            seen.clear()
            answer = client.post("/v1/predict", files={"file": (name, content)})
            if name in imported:
                stored = read_stored(data.path(imported[name]).read_bytes(), Storage(size=32)).gray
                (served,) = np.concatenate(seen)
                np.testing.assert_array_equal(served, to_input(stored, PREPARATION), err_msg=name)
                np.testing.assert_array_equal(served, by_name[name], err_msg=name)
                (prediction,) = answer.json()["predictions"]
                assert prediction["remarks"] == predicted[name]["remarks"]
                for remark in prediction["remarks"]:
                    remarks.setdefault(remark, set()).add(name)
            else:
                assert answer.status_code in (400, 413, 415, 422), name
                assert left_out[name] == refused[name], name
                assert left_out[name] in answer.text.replace('\\"', '"'), name
    assert set(imported) >= {"gray.png", "colour.jpg", "film.dcm", "scan.dcm", "picture.webp"}
    assert set(left_out) >= {"frames.tif", "cut.jpg", "text.png"}
    assert {count.remark: count.images for count in data.info.remarks} == {
        remark: len(names) for remark, names in remarks.items()
    }
    assert any("modality CT" in remark for remark in remarks)
    assert manifest.read_dataset(data.folder) == data


def test_a_model_of_older_decoding_rules_refuses_only_what_they_read_otherwise(monkeypatch: pytest.MonkeyPatch) -> None:
    old = Storage(size=32)
    assert old.rules == 1 < DECODING_RULES
    png = encode(Image.fromarray(draw(1)), "PNG")
    assert read_stored(png, old).gray.shape == (32, 32)
    read = decode.read_gray

    def read_otherwise(data: bytes, **options: int) -> Picture:
        picture = read(data, **options)
        return Picture(255 - picture.gray, picture.format, picture.mode, picture.width, picture.height, rules=2)

    monkeypatch.setattr(decode, "read_gray", read_otherwise)
    with pytest.raises(ImageError, match="decoding rules 1, under which the data were imported, read such a file wro"):
        read_stored(png, old)
    with pytest.raises(ImageError, match="save it as an 8-bit PNG, or import the data again and train a new model"):
        prepare(png, Preparation(size=32, height=28, width=28))
    assert read_stored(png, Storage(size=32, rules=2)).gray.shape == (32, 32)


def test_a_data_set_of_other_decoding_rules_is_named_and_replaced_only_by_force(tmp_path: Path) -> None:
    for seed in range(8):
        (tmp_path / "source" / "AB"[seed % 2]).mkdir(parents=True, exist_ok=True)
        (tmp_path / "source" / "AB"[seed % 2] / f"{seed}.png").write_bytes(encode_png(draw(seed)))
    settings, out = ImportSettings(size=16), tmp_path / "data"
    data = import_dataset(tmp_path / "source", out, settings, workers=1)
    assert data.info.rules == DECODING_RULES
    old = data.info.model_copy(update={"rules": 1})
    fingerprint = manifest.compute_fingerprint(data.rows, old, data.digests)
    assert fingerprint != data.info.fingerprint
    manifest.write_dataset(out, data.rows, old.model_copy(update={"fingerprint": fingerprint}), data.digests)
    with pytest.raises(InputError, match=r"imported under decoding rules 1 \(now 2\); use --force"):
        import_dataset(tmp_path / "source", out, settings, workers=1)
    assert import_dataset(tmp_path / "source", out, settings, workers=1, force=True) == data

    document = json.loads((out / "dataset.json").read_text())
    (out / "dataset.json").write_text(json.dumps(document | {"rules": DECODING_RULES + 1}))
    with pytest.raises(InputError, match=r"made under decoding rules 3, this pneumo knows 2; upgrade pneumo"):
        manifest.read_dataset(out)
