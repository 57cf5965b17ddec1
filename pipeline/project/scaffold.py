"""Files of a new project: configs, a folder for images, .gitignore, README, git and DVC."""

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
"""Configs that `pneumo init` copies: `ludwig_configs/` of a checkout, or the copy that `setup.py` installs."""

CONFIGS = Path("ludwig_configs")
RAW = Path("raw")

GITIGNORE = """\
# images, and files that pneumo makes
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

Put your images under `raw/`, one folder per class (or give any folder, zip, CSV or MedMNIST file instead), then:

```bash
pneumo doctor                                    # checks the installation
pneumo data import raw --out data                # splits by patient, without leakage
pneumo data check data                           # damage, duplicates, leakage: exit 1 on a defect
pneumo train ludwig_configs/baseline.yaml        # one run, with a report in runs/
pneumo evaluate latest
pneumo promote latest                            # adds it to models/ if it passes ludwig_configs/gate.yaml
pneumo serve                                     # http://127.0.0.1:8000
```

Without images, `pneumo data phantom raw --images 640` draws synthetic ones. `ludwig_configs/smoke.yaml` trains on them
in half a minute.

Then edit a file in `ludwig_configs/`, check it with `pneumo config validate`, train, and compare: `pneumo runs list`,
`pneumo runs compare A B`. For real X-rays start from `ludwig_configs/recommended.yaml`.
{dvc}"""

DVC_README = """
The data set is versioned with DVC: `dvc add data`, `git add data.dvc`, then `pneumo data push` and, elsewhere,
`pneumo data pull`.
"""


@dataclass(frozen=True)
class Project:
    """A new project: its folder, the names of its configs, and whether git and DVC are set up in it."""

    folder: Path
    configs: list[str]
    git: bool
    dvc: bool


def find_starter(path: Path) -> Path:
    """Return a config's path, or that of the installed config of the same name if the file does not exist."""
    installed = STARTERS / path.name
    return installed if not path.exists() and path.parent == CONFIGS and installed.is_file() else path


def create_project(folder: Path, reporter: Reporter = SILENT) -> Project:
    """Create a project in a new or empty folder; raise an `InputError` or `MachineError` if that cannot be."""
    try:
        if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            raise InputError(f"{folder}: exists and is not empty; give the name of a new folder")
        names = sorted(path.name for path in STARTERS.glob("*.yaml"))
        if not names:
            raise MachineError(f"{STARTERS}: this installation has no configs; install pneumo again")
        (folder / CONFIGS).mkdir(parents=True)
        for name in names:
            shutil.copyfile(STARTERS / name, folder / CONFIGS / name)
        git = _init_git(folder, reporter)
        dvc = _init_dvc(folder, git, reporter)
        (folder / RAW).mkdir()
        for name, text in {
            ".gitignore": GITIGNORE,
            f"{RAW}/.gitignore": "*\n!.gitignore\n",
            "README.md": README.format(name=folder.resolve().name, dvc=DVC_README if dvc else ""),
        }.items():
            (folder / name).write_text(text, encoding="utf-8")
    except OSError as error:
        raise MachineError(f"{error.filename or folder}: cannot be written ({error.strerror})") from None
    return Project(folder, names, git, dvc)


def _init_git(folder: Path, reporter: Reporter) -> bool:
    """Make a repository unless the folder lies in one; return whether there is one."""
    if shutil.which("git") is None:
        reporter.message("git is not installed: no repository was made")
        return False
    return _run(folder, "git", "rev-parse", "--git-dir") or _run(folder, "git", "init", "--quiet")


def _init_dvc(folder: Path, git: bool, reporter: Reporter) -> bool:
    """Set up DVC; return whether that was possible."""
    if importlib.util.find_spec("dvc") is None:
        reporter.message(
            "DVC is not installed: to version the data, `pip install 'dvc[gs]'`, then run `dvc init` in the project"
        )
        return False
    options = () if git and (folder / ".git").exists() else ("--subdir",) if git else ("--no-scm",)
    if not _run(folder, sys.executable, "-m", "dvc", "init", "--quiet", *options):
        reporter.message("`dvc init` failed: run it in the project to see why")
        return False
    config = DVC_CONFIG if git else DVC_CONFIG.replace("[core]\n", "[core]\n    no_scm = true\n")
    (folder / ".dvc" / "config").write_text(config, encoding="utf-8")
    return True


def _run(folder: Path, *command: str) -> bool:
    """Run a command in a folder; return whether it succeeded."""
    return subprocess.run(command, cwd=folder, capture_output=True, check=False, timeout=120).returncode == 0
