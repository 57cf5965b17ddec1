"""Files of a new project: configs, folders, README, the documentation, git and DVC."""

import importlib.util
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from pneumo.pipeline.runs.reporter import SILENT, Reporter
from pneumo.serving.contracts.errors import InputError, MachineError

_CHECKOUT = Path(__file__).resolve().parents[2]


def _find_files(installed: str, checkout: str) -> Path:
    folder = Path(__file__).with_name(installed)
    return folder if folder.is_dir() else _CHECKOUT / checkout


STARTERS = _find_files("starters", "ludwig_configs")
"""Configs that `pneumo init` copies: `ludwig_configs/` of a checkout, or the copy that `setup.py` installs."""

PAGES = _find_files("pages", "docs")
"""The documentation, likewise."""

CONFIGS = Path("ludwig_configs")


@dataclass(frozen=True)
class Project:
    """A new project.

    `configs` are names of configs, `guide` is the page to read first, `kept` are files that were there and stayed as
    they were. `git` and `dvc` tell whether the folder lies in a repository, and whether DVC is installed.
    """

    folder: Path
    configs: list[str]
    guide: str
    kept: list[str]
    git: bool
    dvc: bool


def find_starter(path: Path) -> Path:
    """Return a config's path, or that of the installed config of the same name if the file does not exist."""
    installed = STARTERS / path.name
    return installed if not path.exists() and path.parent == CONFIGS and installed.is_file() else path


def create_project(folder: Path, reporter: Reporter = SILENT) -> Project:
    """Create a project in a folder, new or not. No file there is replaced, and nothing is staged in its repository.

    Lines of .gitignore that an older one lacks are added to it. If there is a README.md the guide is PNEUMO.md, and if
    there is a folder docs/ the documentation goes into pneumo-docs/.

    Raises:
        InputError: The folder is a file, or a project already.
        MachineError: A file cannot be written, or this installation lacks its configs.
    """
    try:
        if folder.exists() and not folder.is_dir():
            raise InputError(f"{folder}: is a file; give the name of a folder")
        if (folder / CONFIGS).exists():
            raise InputError(f"{folder}: holds {CONFIGS}/, so it is a project already; give another folder")
        names = sorted(path.name for path in STARTERS.glob("*.yaml"))
        if not names:
            raise MachineError(f"{STARTERS}: this installation has no configs; install pneumo again")
        folder.mkdir(parents=True, exist_ok=True)
        git, dvc = _init_git(folder, reporter), importlib.util.find_spec("dvc") is not None
        if not dvc:
            reporter.message("DVC is not installed: to version the data, `pip install 'dvc[gs]'`")
        guide = "PNEUMO.md" if (folder / "README.md").exists() else "README.md"
        kept = []
        for name, content in _make_files(folder, guide, git):
            path = folder / name
            if path.exists() and path.name == ".gitignore":
                content = _join_lines(path.read_bytes(), content)
            elif path.exists():
                kept.append(name)
                continue
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
    except OSError as error:
        raise MachineError(f"{error.filename or folder}: cannot be written ({error.strerror})") from None
    return Project(folder, names, guide, kept, git, dvc)


def read_template(name: str) -> str:
    """Return the text of a file of a new project."""
    return Path(__file__).with_name("templates").joinpath(f"{name}.txt").read_text(encoding="utf-8")


def _make_files(folder: Path, guide: str, git: bool) -> Iterator[tuple[str, bytes]]:
    """Yield the path and content of each file of a project in a folder."""
    pages = "pneumo-docs" if (folder / "docs").exists() else "docs"
    config = read_template("dvc_config").replace("[core]\n", "[core]\n" if git else "[core]\n    no_scm = true\n")
    texts = {
        ".gitignore": read_template("gitignore"),
        "raw/.gitignore": "*\n!.gitignore\n",
        "population.yaml": read_template("population"),
        guide: read_template("readme").format(name=folder.resolve().name, pages=pages),
        "dvc.yaml": read_template("dvc"),
        "params.yaml": read_template("params"),
        ".dvcignore": read_template("dvcignore"),
        ".dvc/config": config,
        ".dvc/.gitignore": "/config.local\n/tmp\n/cache\n",
    }
    texts |= {str(CONFIGS / path.name): path.read_text(encoding="utf-8") for path in STARTERS.glob("*.*")}
    for name, text in texts.items():
        yield name, text.replace("docs/", f"{pages}/").encode() if name.endswith(".yaml") else text.encode()
    for path in sorted(PAGES.rglob("*")):
        if path.suffix in (".md", ".png", ".svg", ".webp"):
            yield f"{pages}/{path.relative_to(PAGES).as_posix()}", path.read_bytes()


def _join_lines(old: bytes, new: bytes) -> bytes:
    """Return a text with the lines of another that it lacks at its end."""
    lines = old.splitlines()
    missing = [line for line in new.splitlines() if line not in lines]
    return b"\n".join([*lines, *([b"# pneumo"] if missing else []), *missing, b""])


def _init_git(folder: Path, reporter: Reporter) -> bool:
    """Make a repository unless the folder lies in one; return whether there is one."""
    if shutil.which("git") is None:
        reporter.message("git is not installed: no repository was made")
        return False
    commands = (("git", "rev-parse", "--git-dir"), ("git", "init", "--quiet"))
    return any(
        subprocess.run(command, cwd=folder, capture_output=True, check=False, timeout=120).returncode == 0
        for command in commands
    )
