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
        for path in (*STARTERS.glob("*.yaml"), *STARTERS.glob("*.json")):
            shutil.copyfile(path, folder / CONFIGS / path.name)
        git = _init_git(folder, reporter)
        dvc = _init_dvc(folder, git, reporter)
        (folder / RAW).mkdir()
        about_dvc = read_template("readme_dvc") if dvc else ""
        for name, text in {
            ".gitignore": read_template("gitignore"),
            f"{RAW}/.gitignore": "*\n!.gitignore\n",
            "population.yaml": read_template("population"),
            "README.md": read_template("readme").format(name=folder.resolve().name, dvc=about_dvc),
        }.items():
            (folder / name).write_text(text, encoding="utf-8")
    except OSError as error:
        raise MachineError(f"{error.filename or folder}: cannot be written ({error.strerror})") from None
    return Project(folder, names, git, dvc)


def read_template(name: str) -> str:
    """Return the text of a file of a new project."""
    return Path(__file__).with_name("templates").joinpath(f"{name}.txt").read_text(encoding="utf-8")


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
    config = read_template("dvc_config")
    config = config if git else config.replace("[core]\n", "[core]\n    no_scm = true\n")
    (folder / ".dvc" / "config").write_text(config, encoding="utf-8")
    return True


def _run(folder: Path, *command: str) -> bool:
    """Run a command in a folder; return whether it succeeded."""
    return subprocess.run(command, cwd=folder, capture_output=True, check=False, timeout=120).returncode == 0
