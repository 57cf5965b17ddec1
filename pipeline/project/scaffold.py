"""A project of one's own: configs to edit, a place for images, what git shall not hold, DVC where it is installed."""

import importlib.util
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from pneumo.pipeline.runs.reporter import SILENT, Reporter
from pneumo.serving.contracts.errors import InputError, MachineError

_INSTALLED, _CHECKOUT = Path(__file__).with_name("starters"), Path(__file__).resolve().parents[2] / "ludwig_configs"
STARTERS = _INSTALLED if _INSTALLED.is_dir() else _CHECKOUT
"""Configs that `pneumo init` copies: `ludwig_configs/` of a checkout, or their copy that `setup.py` installs."""

CONFIGS = Path("ludwig_configs")
RAW = Path("raw")

GITIGNORE = """\
# images as they came, and what pneumo makes
/raw/*
!/raw/.gitignore
/data/
/runs/
/sweeps/
/models/*
!/models/registry.yaml
/demo/
/downloads/
/storage/
predictions.sqlite3*
prediction-spool/
/wandb/
# API keys of the service
keys.yaml
.keys.yaml*
# environments
.venv/
__pycache__/
"""

DVC_CONFIG = """\
[core]
    analytics = false
    check_update = false
    remote = local
# A folder of the project. To move to a bucket: `dvc remote add --default bucket gs://YOUR-BUCKET/data`.
['remote "local"']
    url = ../storage
"""

README = """\
# {name}

A chest X-ray classifier made with pneumo. Research software, not a medical device.

Put your images under `raw/`, one folder a class (or give any folder, zip, CSV or MedMNIST file instead), then:

```bash
pneumo doctor                                    # what is installed, what is missing
pneumo data import raw --out data                # splits that cannot leak, by patient
pneumo data check data                           # damage, duplicates, leakage: exit 1 on a defect
pneumo train ludwig_configs/baseline.yaml        # one run, with a report in runs/
pneumo evaluate latest
pneumo promote latest                            # through the gate (ludwig_configs/gate.yaml) into models/
pneumo serve                                     # http://127.0.0.1:8000
```

No images yet? `pneumo data phantom raw --images 640` draws synthetic ones, on which `ludwig_configs/smoke.yaml` trains
in half a minute.

Then edit a file in `ludwig_configs/`, check it with `pneumo config validate`, and compare: `pneumo runs list`,
`pneumo runs compare A B`. `ludwig_configs/recommended.yaml` is what to start from with real X-rays.
{dvc}"""

DVC_README = """
The data set is versioned with DVC: `dvc add data`, `git add data.dvc`, then `pneumo data push` and, elsewhere,
`pneumo data pull`.
"""


@dataclass(frozen=True)
class Project:
    """What was made.

    Attributes:
        folder: The project.
        configs: Names of the configs in it.
        git: Whether it lies in a git repository now.
        dvc: Whether DVC is set up in it.
    """

    folder: Path
    configs: list[str]
    git: bool
    dvc: bool


def find_starter(path: Path) -> Path:
    """A config by its path, or the one of that name that comes with pneumo where there is none."""
    shipped = STARTERS / path.name
    return shipped if not path.exists() and path.parent == CONFIGS and shipped.is_file() else path


def create_project(folder: Path, reporter: Reporter = SILENT) -> Project:
    """Make a project in a new or empty folder.

    Args:
        folder: Where.
        reporter: Receives progress.

    Raises:
        InputError: The folder holds something.
        MachineError: It cannot be written.
    """
    try:
        if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            raise InputError(f"{folder}: is there and not empty; give the name of a new folder")
        (folder / CONFIGS).mkdir(parents=True)
        (folder / RAW).mkdir()
        (folder / RAW / ".gitignore").write_text("*\n!.gitignore\n", encoding="utf-8")
        names = sorted(path.name for path in STARTERS.glob("*.yaml"))
        if not names:
            raise MachineError(f"{STARTERS}: the configs are missing from this installation; install pneumo again")
        for name in names:
            shutil.copyfile(STARTERS / name, folder / CONFIGS / name)
        (folder / ".gitignore").write_text(GITIGNORE, encoding="utf-8")
        git = _git(folder, reporter)
        dvc = _dvc(folder, git, reporter)
        readme = README.format(name=folder.resolve().name, dvc=DVC_README if dvc else "")
        (folder / "README.md").write_text(readme, encoding="utf-8")
    except OSError as error:
        raise MachineError(f"{error.filename or folder}: cannot be written ({error.strerror})") from None
    return Project(folder, names, git, dvc)


def _git(folder: Path, reporter: Reporter) -> bool:
    """Make a repository, unless the folder lies in one."""
    if shutil.which("git") is None:
        reporter.message("git is not installed: no repository was made")
        return False
    if _runs(folder, "git", "rev-parse", "--git-dir"):
        return True
    return _runs(folder, "git", "init", "--quiet")


def _dvc(folder: Path, git: bool, reporter: Reporter) -> bool:
    if importlib.util.find_spec("dvc") is None:
        reporter.message(
            "DVC is not installed: `pip install 'dvc[gs]'`, then `dvc init` in the project, to version its data"
        )
        return False
    options = () if git and (folder / ".git").exists() else ("--subdir",) if git else ("--no-scm",)
    if not _runs(folder, sys.executable, "-m", "dvc", "init", "--quiet", *options):
        reporter.message("`dvc init` failed: run it in the project to see why")
        return False
    config = DVC_CONFIG if git else DVC_CONFIG.replace("[core]\n", "[core]\n    no_scm = true\n")
    (folder / ".dvc" / "config").write_text(config, encoding="utf-8")
    return True


def _runs(folder: Path, *command: str) -> bool:
    return subprocess.run(command, cwd=folder, capture_output=True, check=False, timeout=120).returncode == 0
