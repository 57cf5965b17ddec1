import json
import multiprocessing
import shutil
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import yaml

from pneumo.pipeline.release.registry import current_bundle, find_bundle, promote, rollback
from pneumo.pipeline.runs.run import Run
from pneumo.serving.contracts.errors import InputError, MachineError
from pneumo.serving.model.bundle import Bundle, BundleError
from pneumo.serving.model.registry import read_registry, resolve
from tests.support.bundles import make_bundle

NOW = datetime(2026, 11, 23, 12, 30, 15, 999, tzinfo=UTC)


@pytest.fixture(scope="module")
def bundles(tmp_path_factory) -> list[Path]:
    """Three versions of one model."""
    folder = tmp_path_factory.mktemp("bundles")
    return [make_bundle(folder / str(number), seed=number, version=str(number)).folder for number in (1, 2, 3)]


@pytest.fixture
def root(tmp_path) -> Path:
    return tmp_path / "models"


def test_a_promoted_bundle_is_copied_verified_and_listed(bundles, root):
    version = promote(bundles[0], root=root, now=NOW)
    bundle = Bundle.open(root / "tiny" / "1")
    assert version.model_dump() == {
        "name": "tiny",
        "version": "1",
        "bundle": "tiny/1",
        "digest": bundle.digest,
        "metrics": {"test": {"auroc": {"value": 0.9, "low": 0.8, "high": 0.95}}},
        "promoted_at": NOW.replace(microsecond=0),
        "run": "20261123T000000Z-tiny-abcd",
    }
    assert read_registry(root).versions == [version]
    assert resolve("champion", root) == resolve("tiny:1", root) == root / "tiny" / "1"


def test_the_registry_file_is_text_with_versions_and_aliases(bundles, root):
    promote(bundles[0], root=root, now=NOW)
    loaded = yaml.safe_load((root / "registry.yaml").read_text())
    assert loaded["schema_version"] == 2
    assert loaded["aliases"] == {"champion": "tiny:1"}
    assert loaded["versions"][0]["promoted_at"] == "2026-11-23T12:30:15Z"
    assert loaded["versions"][0]["bundle"] == "tiny/1"


def test_a_registry_from_before_there_was_a_gate_is_read_and_gets_its_records_from_now_on(bundles, root):
    promote(bundles[0], root=root, now=NOW)
    document = yaml.safe_load((root / "registry.yaml").read_text())
    del document["promotions"]
    (root / "registry.yaml").write_text(yaml.safe_dump(document | {"schema_version": 1}))
    promote(bundles[1], root=root, now=NOW)
    rollback(root=root, now=NOW)
    found = read_registry(root)
    assert found.schema_version == 2
    told = [(each.action, each.before, each.version) for each in found.promotions]
    assert told == [("promote", "tiny:1", "tiny:2"), ("rollback", "tiny:2", "tiny:1")]


def test_a_second_promotion_adds_a_version_and_moves_the_alias(bundles, root):
    promote(bundles[0], root=root)
    promote(bundles[1], root=root)
    assert [version.id for version in read_registry(root).versions] == ["tiny:1", "tiny:2"]
    assert resolve("champion", root) == root / "tiny" / "2"
    assert resolve("tiny:1", root) == root / "tiny" / "1"


def test_a_challenger_leaves_the_champion_alone(bundles, root):
    promote(bundles[0], root=root)
    promote(bundles[1], alias="challenger", root=root)
    assert read_registry(root).aliases == {"champion": "tiny:1", "challenger": "tiny:2"}


def test_promoting_the_same_bundle_again_changes_nothing(bundles, root):
    first = promote(bundles[0], root=root, now=NOW)
    before = (root / "registry.yaml").read_bytes()
    inode = (root / "tiny" / "1").stat().st_ino
    assert promote(bundles[0], root=root) == first
    assert promote(root / "tiny" / "1", root=root) == first
    assert (root / "registry.yaml").read_bytes() == before
    assert (root / "tiny" / "1").stat().st_ino == inode


def test_another_bundle_under_a_taken_version_is_refused(bundles, root, tmp_path):
    promote(bundles[0], root=root)
    before = (root / "registry.yaml").read_bytes()
    impostor = make_bundle(tmp_path / "impostor", seed=9, version="1").folder
    with pytest.raises(InputError, match="another bundle as tiny:1"):
        promote(impostor, root=root)
    assert (root / "registry.yaml").read_bytes() == before
    assert Bundle.open(root / "tiny" / "1").digest == Bundle.open(bundles[0]).digest


def test_a_bundle_that_changed_is_refused_and_nothing_written(bundles, root, tmp_path):
    shutil.copytree(bundles[0], tmp_path / "spoilt")
    (tmp_path / "spoilt" / "model.onnx").write_bytes(b"x")
    with pytest.raises(BundleError, match=r"model\.onnx"):
        promote(tmp_path / "spoilt", root=root)
    assert not root.exists()


def test_a_promotion_that_breaks_off_leaves_the_registry_as_it_was(bundles, root, monkeypatch):
    promote(bundles[0], root=root)
    before = (root / "registry.yaml").read_bytes()
    copy = shutil.copyfile
    copied: list[Any] = []

    def break_off(source, target):
        if len(copied) == 2:
            raise KeyboardInterrupt
        copied.append(copy(source, target))

    monkeypatch.setattr("pneumo.pipeline.release.registry.store.shutil.copyfile", break_off)
    with pytest.raises(KeyboardInterrupt):
        promote(bundles[1], root=root)
    monkeypatch.undo()
    assert (root / "registry.yaml").read_bytes() == before
    assert [path.name for path in (root / "tiny").iterdir()] == ["1"]
    assert promote(bundles[1], root=root).id == "tiny:2"


def test_what_a_killed_promotion_left_is_cleared_away(bundles, root):
    promote(bundles[0], root=root)
    (root / "tiny" / ".partial-dead").mkdir()
    (root / "tiny" / "2").mkdir()  # copied, but never registered
    (root / "tiny" / "2" / "model.onnx").write_bytes(b"half")
    promote(bundles[1], root=root)
    assert sorted(path.name for path in (root / "tiny").iterdir()) == ["1", "2"]
    assert Bundle.open(root / "tiny" / "2").info.version == "2"


def test_promoting_again_repairs_a_damaged_bundle_in_the_registry(bundles, root):
    promote(bundles[0], root=root)
    (root / "tiny" / "1" / "model.onnx").unlink()
    promote(bundles[0], root=root)
    assert Bundle.open(root / "tiny" / "1").info.id == "tiny:1"


@pytest.mark.parametrize("alias", ["", "a b", "../x", "1st", "tiny:1", "-x"])
def test_names_that_cannot_be_an_alias_are_refused(bundles, root, alias):
    with pytest.raises(InputError, match="--alias"):
        promote(bundles[0], alias=alias, root=root)
    assert not root.exists()


def test_rollback_goes_back_one_promotion_at_a_time(bundles, root):
    for bundle in bundles:
        promote(bundle, root=root)
    assert rollback(root=root).id == "tiny:2"
    assert resolve("champion", root) == root / "tiny" / "2"
    assert rollback(root=root).id == "tiny:1"
    assert len(read_registry(root).versions) == 3
    with pytest.raises(InputError, match="there is no previous one"):
        rollback(root=root)
    assert read_registry(root).aliases == {"champion": "tiny:1"}


def test_a_promotion_after_a_rollback_can_be_rolled_back_to_the_same_place(bundles, root):
    promote(bundles[0], root=root)
    promote(bundles[1], root=root)
    rollback(root=root)
    promote(bundles[2], root=root)
    assert rollback(root=root).id == "tiny:1"


def test_rollback_of_an_unknown_alias_names_the_known(bundles, root):
    promote(bundles[0], root=root)
    for word, hint in (("challenger", "known: champion"), ("Champoin", "did you mean champion")):
        with pytest.raises(InputError, match=hint):
            rollback(word, root=root)


def test_rollback_to_a_bundle_that_is_damaged_is_refused(bundles, root):
    promote(bundles[0], root=root)
    promote(bundles[1], root=root)
    (root / "tiny" / "1" / "model.onnx").write_bytes(b"x")
    with pytest.raises(BundleError):
        rollback(root=root)
    assert read_registry(root).aliases == {"champion": "tiny:2"}


def test_a_folder_that_cannot_be_written_is_a_fault_of_the_machine(bundles, tmp_path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(MachineError, match="--models-dir"):
        promote(bundles[0], root=tmp_path / "file" / "models")


def promote_many(folders: list[str], root: str, alias: str, start) -> None:
    start.wait(30)
    for folder in folders:
        promote(Path(folder), alias=alias, root=Path(root))


def test_processes_that_promote_at_once_lose_nothing(tmp_path, root):
    aliases = ["champion", "challenger"]
    folders = {
        alias: [
            str(make_bundle(tmp_path / f"{alias}{number}", seed=number, name=alias, version=str(number)).folder)
            for number in range(3)
        ]
        for alias in aliases
    }
    shared = str(make_bundle(tmp_path / "shared", name="shared").folder)
    context = multiprocessing.get_context("spawn")
    start = context.Barrier(len(aliases))
    processes = [
        context.Process(target=promote_many, args=([*folders[alias], shared], str(root), alias, start))
        for alias in aliases
    ]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
    assert [process.exitcode for process in processes] == [0, 0]
    found = read_registry(root)
    assert len(found.versions) == 7
    assert found.aliases == dict.fromkeys(aliases, "shared:1")
    for alias in aliases:
        assert found.history[alias] == [f"{alias}:{number}" for number in range(3)] + ["shared:1"]
    for version in found.versions:
        assert Bundle.open(root / version.bundle).digest == version.digest


@pytest.fixture
def run(bundles, tmp_path) -> Run:
    """A run with metrics and the bundle that was made from them."""
    run = Run(tmp_path / "runs" / "20260101T000000Z-smoke-abcd")
    shutil.copytree(bundles[2], run.folder / "bundle")
    (run.folder / "run.json").write_text(json.dumps({}))
    run.metrics.write_text(json.dumps(Bundle.open(bundles[2]).info.metrics, indent=2))
    return run


def test_a_bundle_is_found_by_folder_alias_version_and_run(bundles, root, run):
    promote(bundles[0], root=root)
    assert find_bundle(str(bundles[1]), root=root) == bundles[1]
    assert find_bundle("champion", root=root) == find_bundle("tiny:1", root=root) == root / "tiny" / "1"
    assert find_bundle(str(run.folder), root=root) == run.folder / "bundle"
    assert find_bundle("latest", root=root, runs=run.folder.parent) == run.folder / "bundle"


@pytest.mark.parametrize("find", [find_bundle, lambda what, root: resolve(what, root)], ids=["promote", "serve"])
def test_an_alias_goes_before_a_folder_of_that_name_unless_written_as_a_path(
    find, bundles, root, tmp_path, monkeypatch
):
    promote(bundles[0], root=root)
    shutil.copytree(bundles[1], tmp_path / "champion")
    monkeypatch.chdir(tmp_path)
    assert find("champion", root=root) == root / "tiny" / "1"
    for path in ("./champion", "champion/", str(tmp_path / "champion")):
        assert find(path, root=root).resolve() == tmp_path / "champion"


@pytest.mark.parametrize("find", [find_bundle, lambda what, root: resolve(what, root)], ids=["promote", "serve"])
def test_a_path_needs_no_registry(find, bundles, root):
    root.mkdir()
    (root / "registry.yaml").write_text("damaged")
    assert find(str(bundles[0]), root=root) == bundles[0]


def test_a_bundle_made_from_the_present_metrics_is_current(run):
    assert current_bundle(run) == run.folder / "bundle"


def test_a_bundle_from_before_another_evaluation_is_not_current(run):
    metrics = json.loads(run.metrics.read_text())
    metrics["splits"]["test"]["metrics"]["auroc"]["low"] += 1e-12
    run.metrics.write_text(json.dumps(metrics))
    assert current_bundle(run) is None


@pytest.mark.parametrize("file", ["bundle/model.onnx", "bundle/bundle.json", "metrics.json"])
@pytest.mark.parametrize("content", [None, b"", b"{", b"\xff"])
def test_a_bundle_is_not_current_where_it_or_the_metrics_are_missing_or_damaged(run, file, content):
    (run.folder / file).unlink()
    if content is not None:
        (run.folder / file).write_bytes(content)
    assert current_bundle(run) is None


@pytest.mark.parametrize("change", ["no bundle", "other metrics"])
def test_a_run_without_a_current_bundle_is_exported(root, run, monkeypatch, change):
    if change == "no bundle":
        shutil.rmtree(run.folder / "bundle")
    else:
        run.metrics.write_text("{}")
    monkeypatch.setattr(
        "pneumo.pipeline.export.bundle_export.export_run", lambda found, reporter=None: found.folder / "exported"
    )
    assert find_bundle(str(run.folder), root=root) == run.folder / "exported"


def test_what_is_nothing_is_an_input_error(root, tmp_path):
    with pytest.raises(InputError, match="no such run"):
        find_bundle("nothing", root=root, runs=tmp_path)
