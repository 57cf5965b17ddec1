import json
import shutil
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from pneumo.serving.contracts.errors import InputError
from pneumo.serving.model.bundle import Bundle, BundleError, BundleInfo, compute_digest, seal_bundle

INFO = "bundle.json"


def refused(folder: Path) -> str:
    with pytest.raises(BundleError) as caught:
        Bundle.open(folder)
    assert isinstance(caught.value, InputError)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def rewrite(folder: Path, **changes: object) -> None:
    path = folder / INFO
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def test_a_sealed_bundle_opens_and_knows_its_files(bundle):
    opened = Bundle.open(bundle.folder)
    assert opened.info.files.keys() == {"model.onnx", "embedding_space.npz", "card.md"}
    assert opened.info.files["card.md"] == compute_digest(bundle.folder / "card.md")
    assert opened.digest == compute_digest(bundle.folder / INFO)
    assert opened.info.id == "tiny:1"


@pytest.mark.parametrize("name", ["model.onnx", "embedding_space.npz", "card.md"])
def test_one_flipped_bit_in_any_file_is_refused_and_the_file_named(own_bundle, name):
    path = own_bundle.folder / name
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    assert str(path) in refused(own_bundle.folder)


def test_a_missing_file_is_refused_and_named(own_bundle):
    (own_bundle.folder / "card.md").unlink()
    assert "card.md: missing" in refused(own_bundle.folder)


@pytest.mark.parametrize("name", ["extra.pkl", ".hidden"])
def test_a_file_that_was_not_sealed_is_refused(own_bundle, name):
    (own_bundle.folder / name).write_text("x")
    assert f"{name}: not part of the bundle" in refused(own_bundle.folder)


def test_folders_and_links_in_a_bundle_are_refused(own_bundle):
    (own_bundle.folder / "inside").mkdir()
    assert "plain files only" in refused(own_bundle.folder)
    (own_bundle.folder / "inside").rmdir()
    card = own_bundle.folder / "card.md"
    shutil.move(card, own_bundle.folder.parent / "card.md")
    card.symlink_to(own_bundle.folder.parent / "card.md")
    assert "plain files only" in refused(own_bundle.folder)


def test_a_folder_without_bundle_json_is_no_bundle(tmp_path):
    assert "pneumo export" in refused(tmp_path)
    assert "pneumo export" in refused(tmp_path / "nowhere")


@pytest.mark.parametrize("content", ["", "{", "[]", "null", '"text"', "{}", "\x00"])
def test_a_bundle_json_that_is_not_valid_is_refused(own_bundle, content):
    (own_bundle.folder / INFO).write_text(content)
    assert INFO in refused(own_bundle.folder)


def test_a_schema_version_of_the_future_is_named(own_bundle):
    rewrite(own_bundle.folder, schema_version=5, of_the_future=True)
    assert "schema version 5, this pneumo reads 1 to 4: made by a newer pneumo" in refused(own_bundle.folder)


def test_a_schema_version_that_never_was_is_named(own_bundle):
    rewrite(own_bundle.folder, schema_version="two")
    assert "schema version 'two', this pneumo reads 1 to 4: export the model again" in refused(own_bundle.folder)


@pytest.mark.parametrize("older", [1, 2, 3])
def test_a_bundle_is_written_with_the_newest_version_and_an_older_one_is_read(own_bundle, older):
    content = json.loads((own_bundle.folder / INFO).read_text())
    assert content.pop("schema_version") == 4
    assert content.pop("quantization") is None
    assert content.pop("recalibration") is None
    (own_bundle.folder / INFO).write_text(json.dumps(content | {"schema_version": older}))
    opened = Bundle.open(own_bundle.folder).info
    assert (opened.schema_version, opened.quantization) == (older, None)


@pytest.mark.parametrize(
    "name", ["../card.md", "/etc/passwd", "a/b", "a\\b", "..", "", "C:x", "bundle.json", "nul\0byte"]
)
def test_file_names_that_leave_the_bundle_are_refused(own_bundle, name):
    files = json.loads((own_bundle.folder / INFO).read_text())["files"]
    rewrite(own_bundle.folder, files=files | {name: "0" * 64})
    assert "not the name of a file inside the bundle" in refused(own_bundle.folder)


@pytest.mark.parametrize("name", ["model.onnx", "embedding_space.npz"])
def test_a_bundle_that_does_not_list_what_serving_needs_is_refused(own_bundle, name):
    files = json.loads((own_bundle.folder / INFO).read_text())["files"]
    del files[name]
    rewrite(own_bundle.folder, files=files)
    assert f"{name} is not listed" in refused(own_bundle.folder)


@pytest.mark.parametrize(
    "changes",
    [
        {"classes": ["A"]},
        {"classes": ["A", "A"], "positive_class": "A"},
        {"positive_class": None},
        {"positive_class": "OTHER"},
        {"classes": ["A", "B", "C"], "positive_class": "A"},
        {"thresholds": {}},
        {"thresholds": {"default": 1.5}},
        {"temperature": 0},
        {"temperature": float("inf")},
        {"name": "a:b"},
        {"name": "../a"},
        {"version": ""},
        {"version": "."},
        {"unknown": 1},
    ],
)
def test_an_info_that_contradicts_itself_is_refused(bundle, changes):
    with pytest.raises(ValidationError):
        BundleInfo.model_validate(bundle.info.model_dump() | changes)


def test_three_classes_need_no_positive_class(bundle):
    conformal = {"level": 0.9, "limit": [0.1, 0.2, 0.3]}
    changes = {"classes": ["A", "B", "C"], "positive_class": None, "thresholds": {}, "conformal": conformal}
    assert BundleInfo.model_validate(bundle.info.model_dump() | changes).positive_class is None


def test_the_one_conformal_limit_of_an_older_bundle_is_that_of_every_class(own_bundle):
    rewrite(own_bundle.folder, schema_version=3, conformal={"level": 0.8, "limit": 0.25})
    older = Bundle.open(own_bundle.folder).info
    assert (older.conformal.level, older.conformal.limit) == (0.8, [0.25, 0.25])
    rewrite(own_bundle.folder, conformal={"level": 0.8, "limit": [0.25]})
    assert "conformal.limit must hold 2 numbers, one per class" in refused(own_bundle.folder)


def test_sealing_again_gives_the_same_digest(own_bundle):
    seal_bundle(own_bundle.folder, own_bundle.info)
    assert Bundle.open(own_bundle.folder).digest == own_bundle.digest


def test_sealing_without_a_model_is_refused_and_leaves_no_bundle_json(bundle, tmp_path):
    shutil.copy(bundle.folder / "embedding_space.npz", tmp_path)
    with pytest.raises(BundleError, match=r"model\.onnx: missing"):
        seal_bundle(tmp_path, bundle.info)
    assert [path.name for path in tmp_path.iterdir()] == ["embedding_space.npz"]


def test_metrics_that_are_not_numbers_are_sealed_as_null(own_bundle):
    sealed = seal_bundle(own_bundle.folder, own_bundle.info.model_copy(update={"metrics": {"ppv": float("nan")}}))
    assert sealed.files == own_bundle.info.files
    assert json.loads((own_bundle.folder / INFO).read_text())["metrics"] == {"ppv": None}


def test_bytes_that_changed_after_opening_are_not_read(own_bundle):
    (own_bundle.folder / "card.md").write_text("# Another model\n")
    with pytest.raises(BundleError, match="SHA-256 differs"):
        own_bundle.read("card.md")


@pytest.mark.parametrize("name", ["../secret", "nothing.txt", "bundle.json"])
def test_only_listed_files_are_read(own_bundle, name):
    (own_bundle.folder.parent / "secret").write_text("x")
    with pytest.raises(BundleError):
        own_bundle.read(name)


@given(st.binary(max_size=300))
def test_arbitrary_bytes_as_bundle_json_never_raise_anything_else(content):
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / INFO).write_bytes(content)
        refused(Path(folder))
