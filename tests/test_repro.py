"""The pipeline of dvc.yaml, in a repository of its own."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from pneumo.pipeline.data import importer, phantom
from tests.support.paths import ROOT

STAGES = ["import", "check", "train", "evaluate", "export"]

pytestmark = [pytest.mark.slow, pytest.mark.lengthy]


class Project:
    """A small project with the pipeline; commands run in it as in a shell with the environment activated."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.environment = os.environ | {
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
            "DVC_NO_ANALYTICS": "1",
            "DVC_SITE_CACHE_DIR": str(folder.parent / "site"),
            "GIT_CONFIG_GLOBAL": os.devnull,
        }
        for name in ("GIT_AUTHOR_NAME", "GIT_COMMITTER_NAME", "GIT_AUTHOR_EMAIL", "GIT_COMMITTER_EMAIL"):
            self.environment[name] = "test@example.org"

    def __call__(self, *command: str) -> str:
        done = subprocess.run(
            command, cwd=self.folder, env=self.environment, capture_output=True, text=True, timeout=560, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def repro(self, *options: str) -> list[str]:
        """Names of the stages that ran."""
        return re.findall(r"Running stage '(\w+)'", self("dvc", "repro", *options))

    def change(self, name: str, old: str, new: str) -> None:
        path = self.folder / name
        text = path.read_text()
        assert old in text
        path.write_text(text.replace(old, new))


@pytest.fixture
def project(tmp_path: Path) -> Project:
    folder = tmp_path / "project"
    phantom.write_phantoms(tmp_path / "raw", phantom.Recipe(images=80, seed=5, size=64))
    importer.import_dataset(tmp_path / "raw", folder / "data", importer.ImportSettings(size=64), workers=1)
    for name in ("dvc.yaml", "params.yaml", ".dvcignore", ".gitignore", ".dvc/config", ".dvc/.gitignore"):
        (folder / name).parent.mkdir(exist_ok=True)
        shutil.copy(ROOT / name, folder / name)
    (folder / "ludwig_configs").mkdir()
    shutil.copy(ROOT / "ludwig_configs" / "smoke.yaml", folder / "ludwig_configs")
    project = Project(folder)
    project.change("params.yaml", "size: 128", "size: 64")
    project.change("ludwig_configs/smoke.yaml", "epochs: 25", "epochs: 2")
    project("git", "init", "--quiet")
    project("dvc", "add", "--quiet", "data")
    return project


def test_only_what_depends_on_a_change_is_built_again(project: Project) -> None:
    assert project.repro() == STAGES
    assert (project.folder / "repro" / "bundle" / "bundle.json").is_file()
    assert project.repro() == []
    assert project("git", "status", "--porcelain", "--ignored", "--", "data", "repro").split() == [
        "!!",
        "data/",
        "!!",
        "repro/",
    ]
    project("git", "add", ".")
    project("git", "commit", "--quiet", "--message", "first")

    project.change("params.yaml", "policy: max balanced accuracy", "policy: cost FN:FP = 100:1")
    assert project.repro() == ["evaluate", "export"]

    changed = json.loads(project("dvc", "metrics", "diff", "--json"))["repro/tables/metrics.json"]
    assert "validation.sensitivity" in changed
    assert "test.auroc" not in changed
    page = Path(project("dvc", "plots", "diff", "HEAD", "--out", "compared").strip().removeprefix("file://"))
    text = page.read_text(encoding="utf-8")
    for name in ("ROC curve", "validation_loss", "answers.csv"):
        assert name in text

    project.change("ludwig_configs/smoke.yaml", "epochs: 2", "epochs: 3")
    assert set(project.repro("--dry")) & {"import", "check", "train"} == {"train"}
    with (project.folder / "data" / "notes.txt").open("w") as file:
        file.write("another data set")
    assert "import" in project.repro("--dry")
