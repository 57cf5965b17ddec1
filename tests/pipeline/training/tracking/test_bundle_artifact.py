"""A bundle at Weights & Biases: what an export and a promotion leave in run files, offline."""

import json
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest

from pneumo.pipeline.runs.run import Run
from pneumo.pipeline.training.tracking import tracker
from pneumo.pipeline.training.tracking.bundle_artifact import track_bundle
from pneumo.serving.model.bundle import Bundle
from tests.support.bundles import make_bundle
from tests.support.wandb_files import records


@pytest.fixture(autouse=True)
def nobody(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Hide any account of this machine, and keep artifacts in a folder of the test."""
    for name in ("WANDB_API_KEY", "WANDB_IDENTITY_TOKEN_FILE", "WANDB_BASE_URL", "WANDB_MODE", "WANDB_DIR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    monkeypatch.setenv("WANDB_DATA_DIR", str(tmp_path / "waiting"))


def kept(folder: Path) -> tuple[Any, Any, dict[str, Any]]:
    """Return the run, its artifact, and the artifact's metadata."""
    every = records(folder)
    (artifact,) = (record.artifact for record in every if record.HasField("artifact"))
    return next(record.run for record in every if record.HasField("run")), artifact, json.loads(artifact.metadata)


def test_the_artifact_is_the_sealed_bundle_with_its_names_figures_and_origin(tmp_path: Path) -> None:
    bundle: Bundle = make_bundle(tmp_path / "tiny", version="3")

    track_bundle(bundle, "wandb:offline", job="promote", folder=tmp_path, aliases=["champion"])

    run, artifact, facts = kept(tmp_path)
    assert (run.job_type, run.display_name) == ("promote", "20261123T000000Z-tiny-abcd-promote-champion")
    assert (artifact.type, artifact.name) == ("model", "tiny")
    assert {"3", "champion"} <= set(artifact.aliases)
    files = {path.relative_to(bundle.folder).as_posix() for path in bundle.folder.rglob("*") if path.is_file()}
    assert {entry.path for entry in artifact.manifest.contents} == files
    assert facts["digest"] == bundle.digest
    assert facts["run"] == "20261123T000000Z-tiny-abcd"
    assert facts["data_fingerprint"] == "0" * 64
    assert facts["test/auroc"] == 0.9


@pytest.mark.usefixtures("ready_graph")
def test_export_and_promote_keep_the_bundle_and_the_training_run_stays_as_it_was(
    trained: Run, pneumo: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    own = Path(shutil.copytree(trained.folder, tmp_path / "runs" / trained.name))
    before = (own / "run.json").read_bytes()

    made = pneumo("export", own, "--out", tmp_path / "bundle", "--track", "wandb:offline")
    assert made.code == 0, made.err
    _, artifact, facts = kept(own)
    assert facts["digest"] == Bundle.open(tmp_path / "bundle").digest
    assert facts["validation/auroc"] == pytest.approx(
        Bundle.open(tmp_path / "bundle").info.metrics["splits"]["validation"]["metrics"]["auroc"]["value"]
    )
    assert "champion" not in artifact.aliases

    done = pneumo("promote", "./bundle", "--force", "a test", "--track", "wandb:offline")
    assert done.code == 0, done.err
    run, artifact, facts = kept(tmp_path)
    assert run.job_type == "promote"
    assert "champion" in artifact.aliases
    assert facts["digest"] == Bundle.open(tmp_path / "bundle").digest
    assert (own / "run.json").read_bytes() == before


def test_a_promotion_does_not_fail_because_tracking_does(
    tmp_path: Path, pneumo: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    make_bundle(tmp_path / "b1")
    monkeypatch.setitem(sys.modules, "wandb", None)  # an import raises
    monkeypatch.setattr(tracker, "find_spec", lambda name: True)

    done = pneumo("promote", "b1", "--force", "a test", "--track", "wandb:offline")

    assert done.code == 0
    assert "is not tracked" in done.err
    assert "champion is now tiny:1" in done.err
