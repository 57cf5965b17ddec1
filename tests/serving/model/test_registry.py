import json
import shutil
from typing import Any

import pytest
import yaml

from pneumo.serving.contracts.errors import InputError
from pneumo.serving.model.bundle import Bundle, BundleError
from pneumo.serving.model.registry import read_registry, resolve


@pytest.fixture
def root(tmp_path, bundle):
    """A registry with one version that both aliases mean, written by hand."""
    root = tmp_path / "models"
    shutil.copytree(bundle.folder, root / "tiny" / "1")
    write(root)
    return root


def write(root, **changes: Any) -> None:
    version = {
        "name": "tiny",
        "version": "1",
        "bundle": "tiny/1",
        "digest": Bundle.open(root / "tiny" / "1").digest,
        "metrics": {},
        "promoted_at": "2026-11-23T12:00:00Z",
        "run": None,
    }
    document = {
        "schema_version": 1,
        "versions": [version | changes.pop("version", {})],
        "aliases": {"champion": "tiny:1"},
        "history": {"champion": ["tiny:1"]},
    } | changes
    (root / "registry.yaml").write_text(yaml.safe_dump(document))


@pytest.mark.parametrize("model", ["champion", "tiny:1"])
def test_an_alias_and_a_version_mean_the_registered_folder(root, model):
    assert resolve(model, root) == root / "tiny" / "1"


def test_a_bundle_folder_means_itself_without_a_registry(bundle, tmp_path):
    assert resolve(str(bundle.folder), tmp_path) == bundle.folder


def test_an_alias_goes_before_a_folder_of_that_name(root, bundle, tmp_path, monkeypatch):
    shutil.copytree(bundle.folder, tmp_path / "champion")
    monkeypatch.chdir(tmp_path)
    assert resolve("champion", root) == root / "tiny" / "1"


@pytest.mark.parametrize(
    ("model", "hint"),
    [("champoin", "did you mean champion"), ("zzz", "known: champion"), ("tiny:2", "did you mean tiny:1")],
)
def test_an_unknown_model_gets_a_hint(root, model, hint):
    with pytest.raises(InputError, match=hint):
        resolve(model, root)


def test_without_a_registry_the_mend_is_to_promote(tmp_path):
    with pytest.raises(InputError, match="pneumo promote RUN"):
        resolve("champion", tmp_path)


def test_a_folder_that_is_no_bundle_is_said_to_be_none(root, tmp_path):
    with pytest.raises(InputError, match="no bundle in this folder"):
        resolve(str(tmp_path), root)


def test_a_registered_bundle_that_is_missing_is_named(root):
    shutil.rmtree(root / "tiny")
    with pytest.raises(BundleError, match="the bundle of tiny:1 is missing"):
        resolve("champion", root)


def test_another_bundle_in_the_place_of_the_promoted_is_refused(root):
    path = root / "tiny" / "1" / "bundle.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"policy": "whatever"}))
    with pytest.raises(BundleError, match="not the bundle that was promoted as tiny:1"):
        resolve("champion", root)


@pytest.mark.parametrize("bundle_path", ["../elsewhere", "/etc", "a\\b"])
def test_a_registry_that_points_outside_itself_is_refused(root, bundle_path):
    write(root, version={"bundle": bundle_path})
    with pytest.raises(InputError, match="outside the registry"):
        resolve("champion", root)


@pytest.mark.parametrize(
    "changes",
    [
        {"schema_version": 3},
        {"aliases": {"champion": "tiny:9"}},
        {"history": {}},
        {"history": {"champion": ["tiny:9", "tiny:1"]}},
        {"extra": 1},
        {"versions": "none"},
    ],
)
def test_a_registry_that_contradicts_itself_is_refused(root, changes):
    write(root, **changes)
    with pytest.raises(InputError, match=r"registry\.yaml: .*restore it"):
        read_registry(root)


@pytest.mark.parametrize("content", ["a: [", "- 1", "", "\t", "null"])
def test_a_damaged_registry_is_one_line(root, content):
    (root / "registry.yaml").write_text(content)
    with pytest.raises(InputError) as caught:
        read_registry(root)
    assert "\n" not in str(caught.value)


def test_bytes_that_are_no_text_are_one_line(root):
    (root / "registry.yaml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InputError, match=r"registry\.yaml"):
        read_registry(root)


def test_a_wrong_line_is_numbered(root):
    (root / "registry.yaml").write_text("schema_version: 1\nversions: [\n")
    with pytest.raises(InputError, match=r"registry\.yaml:3: cannot be read as YAML"):
        read_registry(root)
