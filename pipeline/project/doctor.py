"""What is installed, what this machine has, and how to mend what is missing; nothing heavy is imported to find out."""

import configparser
import importlib.metadata
import importlib.util
import os
import platform
import re
import shutil
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pneumo.serving.contracts.cores import available_cores
from pneumo.serving.contracts.install_hints import install_hint

State = Literal["ok", "missing", "off"]

NEEDED = ("", "serve", "train")
"""Extras of the basic loop, from images to a served model; '' are the packages that all commands take."""

_FOR = {
    "": "every command",
    "serve": "pneumo serve, predict",
    "train": "pneumo train, sweep, export",
    "pretrained": "ImageNet weights of efficientnet_lite",
    "xrv": "the xrv_densenet encoder",
    "dicom": "compressed DICOM of more kinds",
    "drift": "drift reports by Evidently",
    "gcs": "registry in a bucket",
    "hyperopt": "one more search algorithm of pneumo sweep",
    "tracing": "traces of pneumo serve",
    "client": "the Python client of the service",
    "ray": "the service on Ray",
    "postgres": "a prediction log that replicas share",
}
"""Extras that are looked at, and what for; others are for work on pneumo itself."""

_TOLD = {"serve": ("onnxruntime", "fastapi"), "train": ("ludwig", "torch", "ray"), "drift": ("evidently",)}
"""Packages whose versions are asked for first where something goes wrong."""

_REQUIREMENT = re.compile(r"^([A-Za-z0-9_.-]+)(?:\[[^\]]*\])?\s*([^;]*)(?:;.*extra == [\"']([^\"']+)[\"'])?")
_LEAST_FREE, _LOW_FREE = 1.0, 10.0
"""GB on the disk: below the first nothing can be trained; the packages with CUDA take 6."""


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at.

    Attributes:
        area: What it is about.
        name: What was looked at.
        state: `ok`; `missing` where it is not as it should be; `off` where it is not there and need not be.
        told: What was found.
        mend: What to do about it, empty where there is nothing to do.
        needed: Whether the loop from images to a served model needs it.
    """

    area: str
    name: str
    state: State
    told: str
    mend: str = ""
    needed: bool = False


def examine_environment(folder: Path = Path(), environment: Mapping[str, str] = os.environ) -> list[Finding]:
    """Look at this machine, and at the project in a folder.

    Args:
        folder: The project; need not be one.
        environment: Variables that Ray, W&B and Google Cloud look at.
    """
    return [
        *_python(),
        *_packages(),
        *_machine(folder),
        *_accelerators(),
        _ray(environment),
        *_tools(),
        _dvc_remote(folder, environment),
        _wandb(environment),
        *_project(folder),
    ]


def _python() -> Iterator[Finding]:
    version = platform.python_version()
    good = (3, 12) <= sys.version_info[:2] < (3, 14)
    mend = "" if good else "make an environment with Python 3.12: `uv venv --python 3.12`"
    yield Finding("packages", "Python", "ok" if good else "missing", version, mend, needed=True)


def _packages() -> Iterator[Finding]:
    """One finding an extra, from what pneumo's own metadata asks for."""
    wanted: defaultdict[str, list[tuple[str, str]]] = defaultdict(list)
    for line in importlib.metadata.requires("pneumo") or []:
        if (found := _REQUIREMENT.match(line)) and found[1].lower() != "pneumo":
            wanted[found[3] or ""].append((found[1], found[2].strip(" ()")))
    for extra, purpose in _FOR.items():
        problems = [problem for name, versions in wanted[extra] if (problem := _problem(name, versions))]
        needed = extra in NEEDED
        name = f"extra {extra}" if extra else "base"
        if not problems:
            versions = ", ".join(f"{name} {importlib.metadata.version(name)}" for name in _TOLD.get(extra, ()))
            told = f"{purpose}; {versions}" if versions else purpose
            yield Finding("packages", name, "ok", told, needed=needed)
            continue
        told = f"{', '.join(problems[:4])}{', ...' if len(problems) > 4 else ''}; for {purpose}"
        yield Finding("packages", name, "missing" if needed else "off", told, install_hint(extra), needed)


def _problem(name: str, versions: str) -> str | None:
    """What is wrong with a package; None where it is there and of a version that is asked for."""
    try:
        version = importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return f"no {name}"
    if importlib.util.find_spec("packaging") is None:  # comes with nearly everything
        return None
    from packaging.specifiers import SpecifierSet

    fits = SpecifierSet(versions).contains(version, prereleases=True)
    return None if fits else f"{name} {version}, not {versions}"


def _machine(folder: Path) -> Iterator[Finding]:
    cores = available_cores()
    yield Finding("machine", "cores", "ok", f"{cores} ({platform.machine()}, {platform.system()})")
    free = shutil.disk_usage(folder).free / 1e9
    mend = "" if free >= _LOW_FREE else "free some space, or work on another disk"
    enough = free >= _LEAST_FREE
    yield Finding("machine", "free disk", "ok" if enough else "missing", f"{free:.1f} GB", mend, needed=True)


def _accelerators() -> Iterator[Finding]:
    try:
        torch = importlib.metadata.version("torch")
    except importlib.metadata.PackageNotFoundError:
        torch = ""
    if platform.system() == "Darwin" and platform.machine() == "arm64":
        yield Finding("machine", "accelerator", "ok", "Apple's GPU (mps)")
        return
    if shutil.which("nvidia-smi"):
        query = ["nvidia-smi", "--query-gpu=name,memory.total,driver_version", "--format=csv,noheader"]
        try:
            done = subprocess.run(query, capture_output=True, text=True, timeout=10, check=False)
        except subprocess.TimeoutExpired:
            done = None
        names = [line.strip() for line in done.stdout.splitlines()] if done and not done.returncode else []
        if names:
            cpu_only = "+cpu" in torch
            mend = "torch is built for processors only: install one built for CUDA" if cpu_only else ""
            yield Finding("machine", "accelerator", "off" if cpu_only else "ok", "; ".join(names), mend)
            return
        mend = "see what `nvidia-smi` says: driver and kernel module may differ"
        yield Finding("machine", "accelerator", "off", "nvidia-smi answers nothing", mend)
        return
    yield Finding("machine", "accelerator", "off", "none found: training runs on the processor")


def _ray(environment: Mapping[str, str]) -> Finding:
    address = environment.get("RAY_ADDRESS", "")
    if not address and Path("/tmp/ray/ray_current_cluster").is_file():
        address = "a cluster that was started on this machine"
    if address:
        return Finding("cluster", "Ray", "ok", f"`--address auto` joins {address}")
    return Finding("cluster", "Ray", "off", "no cluster: sweeps run on this machine", "`ray start --head` makes one")


def _tools() -> Iterator[Finding]:
    for name, told, mend in (
        ("git", "runs record the commit they came from", "install git"),
        ("dvc", "versions the data set", "`pip install 'dvc[gs]'`"),
    ):
        there = shutil.which(name) is not None or (name == "dvc" and importlib.util.find_spec("dvc") is not None)
        yield Finding("tracking", name, "ok" if there else "off", told, "" if there else mend)


def _dvc_remote(folder: Path, environment: Mapping[str, str]) -> Finding:
    config = configparser.ConfigParser()
    config.read([folder / ".dvc" / "config", folder / ".dvc" / "config.local"], encoding="utf-8")
    name = config.get("core", "remote", fallback="").strip("\"'")
    url = next(
        (part.get("url", "") for section, part in config.items() if section.strip("'") == f'remote "{name}"'), ""
    )
    if not url:
        told = "no project with a default remote in this folder"
        return Finding(
            "tracking", "DVC remote", "off", told, "`pneumo init NAME` makes one, `dvc remote add -d` adds it"
        )
    if url.startswith("gs://"):
        if importlib.util.find_spec("dvc_gs") is None:
            return Finding("tracking", "DVC remote", "missing", f"{name}: {url}", "`pip install 'dvc[gs]'`")
        if not _google_credentials(environment):
            return Finding("tracking", "DVC remote", "missing", f"{name}: {url}, no credentials", _LOGIN)
    return Finding("tracking", "DVC remote", "ok", f"{name}: {url}")


_LOGIN = "`gcloud auth application-default login`, or name a key file in GOOGLE_APPLICATION_CREDENTIALS"


def _google_credentials(environment: Mapping[str, str]) -> bool:
    named = environment.get("GOOGLE_APPLICATION_CREDENTIALS")
    home = Path(
        environment.get("CLOUDSDK_CONFIG") or Path(environment.get("HOME", "~")).expanduser() / ".config/gcloud"
    )
    return (Path(named) if named else home / "application_default_credentials.json").is_file()


def _wandb(environment: Mapping[str, str]) -> Finding:
    if importlib.util.find_spec("wandb") is None:
        told = "not installed: every run folder is complete without it"
        return Finding("tracking", "W&B", "off", told, "`pip install wandb`, then --wandb offline or online")
    netrc = Path(environment.get("NETRC") or Path(environment.get("HOME", "~")).expanduser() / ".netrc")
    known = netrc.is_file() and "wandb" in netrc.read_text(encoding="utf-8", errors="replace")
    if environment.get("WANDB_API_KEY") or known:
        return Finding("tracking", "W&B", "ok", "signed in: `--wandb online` tracks")
    return Finding("tracking", "W&B", "off", "not signed in: `--wandb offline` works", "`wandb login` for online")


def _project(folder: Path) -> Iterator[Finding]:
    for name, path, mend in (
        ("configs", folder / "ludwig_configs", "`pneumo init NAME` makes a project with them"),
        ("data set", folder / "data" / "manifest.csv", "`pneumo data import SRC --out data` makes one"),
        ("registry", folder / "models" / "registry.yaml", "`pneumo promote latest` fills it"),
    ):
        there = path.exists()
        yield Finding("project", name, "ok" if there else "off", str(path), "" if there else mend)
