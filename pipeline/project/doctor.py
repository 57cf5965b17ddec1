"""Checks of `pneumo doctor`: the installation, this machine and the project. Nothing heavy is imported."""

import configparser
import importlib.metadata
import importlib.util
import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

from packaging.requirements import Requirement

from pneumo.serving.contracts.cores import available_cores
from pneumo.serving.contracts.install_hints import install_hint

State = Literal["ok", "missing", "off"]

NEEDED = ("", "serve", "train")
"""Extras that training and serving a model needs; '' stands for the base dependencies."""

_PURPOSES = {
    "": "every command",
    "serve": "pneumo serve, predict",
    "train": "pneumo train, sweep, export",
    "pretrained": "ImageNet weights of efficientnet_lite",
    "xrv": "the xrv_densenet encoder",
    "dicom": "more kinds of compressed DICOM",
    "drift": "drift reports by Evidently",
    "gcs": "registry in a bucket",
    "hyperopt": "one more search algorithm of pneumo sweep",
    "tracing": "traces of pneumo serve",
    "client": "the Python client of the service",
    "ray": "the service on Ray",
    "postgres": "a prediction log that replicas share",
}
"""Purpose of each extra that is checked. Other extras are for work on pneumo itself."""

_SHOWN_VERSIONS = {"serve": ("onnxruntime", "fastapi"), "train": ("ludwig", "torch", "ray"), "drift": ("evidently",)}
_LEAST_FREE, _LOW_FREE = 1.0, 10.0
"""Free disk space in GB: the least that a training needs, and the least for all packages with CUDA (6 GB)."""

_LOGIN = "`gcloud auth application-default login`, or name a key file in GOOGLE_APPLICATION_CREDENTIALS"


@dataclass(frozen=True)
class Finding:
    """The result of one check.

    `state` is `ok`, `missing` if it must be fixed, or `off` if it is absent and optional; `fix` is empty if there is
    nothing to do. `needed` tells whether training and serving a model need it.
    """

    area: str
    name: str
    state: State
    told: str
    fix: str = ""
    needed: bool = False

    def to_dict(self) -> dict[str, object]:
        """Return the entry of `pneumo doctor --json`, whose key for the fix is `mend`."""
        return {"mend" if key == "fix" else key: value for key, value in asdict(self).items()}


def examine_environment(folder: Path = Path(), environment: Mapping[str, str] = os.environ) -> list[Finding]:
    """Check this machine and the project in a folder, with the variables for Ray, W&B and Google Cloud."""
    return [
        *_check_packages(),
        *_check_machine(folder),
        _check_accelerator(),
        _check_ray(environment),
        *_check_presence(folder),
        _check_dvc_remote(folder, environment),
        _check_wandb(environment),
    ]


def _check_packages() -> Iterator[Finding]:
    """Yield one finding for Python and one per extra of pneumo's own metadata."""
    good = (3, 12) <= sys.version_info[:2] < (3, 14)
    fix = "" if good else "make an environment with Python 3.12: `uv venv --python 3.12`"
    yield Finding("packages", "Python", "ok" if good else "missing", platform.python_version(), fix, needed=True)
    requirements = [Requirement(line) for line in importlib.metadata.requires("pneumo") or []]
    for extra, purpose in _PURPOSES.items():
        asked = (each for each in requirements if each.name != "pneumo" and _belongs_to(each, extra))
        problems = [problem for each in asked if (problem := _find_problem(each))]
        needed = extra in NEEDED
        name = f"extra {extra}" if extra else "base"
        if problems:
            told = f"{', '.join(problems[:4])}{', ...' if len(problems) > 4 else ''}; for {purpose}"
            yield Finding("packages", name, "missing" if needed else "off", told, install_hint(extra), needed)
        else:
            versions = ", ".join(
                f"{each} {importlib.metadata.version(each)}" for each in _SHOWN_VERSIONS.get(extra, ())
            )
            yield Finding("packages", name, "ok", f"{purpose}; {versions}" if versions else purpose, needed=needed)


def _belongs_to(requirement: Requirement, extra: str) -> bool:
    if requirement.marker is None:
        return not extra
    return bool(extra) and requirement.marker.evaluate({"extra": extra})


def _find_problem(requirement: Requirement) -> str | None:
    """Return why a required package does not fit; None if it does."""
    try:
        version = importlib.metadata.version(requirement.name)
    except importlib.metadata.PackageNotFoundError:
        return f"no {requirement.name}"
    fits = requirement.specifier.contains(version, prereleases=True)
    return None if fits else f"{requirement.name} {version}, not {requirement.specifier}"


def _check_machine(folder: Path) -> Iterator[Finding]:
    yield Finding("machine", "cores", "ok", f"{available_cores()} ({platform.machine()}, {platform.system()})")
    free = shutil.disk_usage(folder).free / 1e9
    fix = "" if free >= _LOW_FREE else "free some space, or work on another disk"
    state: State = "ok" if free >= _LEAST_FREE else "missing"
    yield Finding("machine", "free disk", state, f"{free:.1f} GB", fix, needed=True)


def _check_accelerator() -> Finding:
    if platform.system() == "Darwin" and platform.machine() == "arm64":
        return Finding("machine", "accelerator", "ok", "Apple's GPU (mps)")
    if not shutil.which("nvidia-smi"):
        return Finding("machine", "accelerator", "off", "none found: training runs on the processor")
    query = ["nvidia-smi", "--query-gpu=name,memory.total,driver_version", "--format=csv,noheader"]
    try:
        names = subprocess.run(query, capture_output=True, text=True, timeout=10, check=True).stdout.splitlines()
    except subprocess.SubprocessError:
        names = []
    if not names:
        fix = "see the output of `nvidia-smi`: driver and kernel module may differ"
        return Finding("machine", "accelerator", "off", "nvidia-smi answers nothing", fix)
    told = "; ".join(name.strip() for name in names)
    if importlib.util.find_spec("torch") and "+cpu" in importlib.metadata.version("torch"):
        return Finding("machine", "accelerator", "off", told, "this torch has no CUDA: install one that has")
    return Finding("machine", "accelerator", "ok", told)


def _check_ray(environment: Mapping[str, str]) -> Finding:
    address = environment.get("RAY_ADDRESS", "")
    if not address and Path("/tmp/ray/ray_current_cluster").is_file():  # noqa: S108 - Ray writes it
        address = "a cluster that was started on this machine"
    if address:
        return Finding("cluster", "Ray", "ok", f"`--address auto` joins {address}")
    return Finding("cluster", "Ray", "off", "no cluster: sweeps run on this machine", "`ray start --head` starts one")


def _check_presence(folder: Path) -> Iterator[Finding]:
    """Yield findings about tools and files that are optional."""
    dvc = shutil.which("dvc") or importlib.util.find_spec("dvc")
    configs, data, registry = (
        folder / name for name in ("ludwig_configs", "data/manifest.csv", "models/registry.yaml")
    )
    for area, name, present, told, fix in (
        ("tracking", "git", shutil.which("git"), "runs record the commit they came from", "install git"),
        ("tracking", "dvc", dvc, "versions the data set", "`pip install 'dvc[gs]'`"),
        ("project", "configs", configs.exists(), str(configs), "`pneumo init NAME` makes a project with them"),
        ("project", "data set", data.exists(), str(data), "`pneumo data import SRC --out data` makes one"),
        ("project", "registry", registry.exists(), str(registry), "`pneumo promote latest` fills it"),
    ):
        yield Finding(area, name, "ok" if present else "off", told, "" if present else fix)


def _check_dvc_remote(folder: Path, environment: Mapping[str, str]) -> Finding:
    config = configparser.ConfigParser()
    config.read([folder / ".dvc" / "config", folder / ".dvc" / "config.local"], encoding="utf-8")
    name = config.get("core", "remote", fallback="").strip("\"'")
    section = f'remote "{name}"'
    url = config.get(f"'{section}'", "url", fallback="") or config.get(section, "url", fallback="")
    if not url:
        fix = "`pneumo init NAME` makes one, `dvc remote add -d` adds it"
        return Finding("tracking", "DVC remote", "off", "no project with a default remote in this folder", fix)
    if url.startswith("gs://"):
        if importlib.util.find_spec("dvc_gs") is None:
            return Finding("tracking", "DVC remote", "missing", f"{name}: {url}", "`pip install 'dvc[gs]'`")
        if not _has_google_credentials(environment):
            return Finding("tracking", "DVC remote", "missing", f"{name}: {url}, no credentials", _LOGIN)
    return Finding("tracking", "DVC remote", "ok", f"{name}: {url}")


def _home(environment: Mapping[str, str]) -> Path:
    return Path(environment.get("HOME", "~")).expanduser()


def _has_google_credentials(environment: Mapping[str, str]) -> bool:
    config = Path(environment.get("CLOUDSDK_CONFIG") or _home(environment) / ".config/gcloud")
    default = config / "application_default_credentials.json"
    return Path(environment.get("GOOGLE_APPLICATION_CREDENTIALS") or default).is_file()


def _check_wandb(environment: Mapping[str, str]) -> Finding:
    if importlib.util.find_spec("wandb") is None:
        told = "not installed: every run folder is complete without it"
        return Finding("tracking", "W&B", "off", told, "`pip install wandb`, then --track wandb")
    netrc = Path(environment.get("NETRC") or _home(environment) / ".netrc")
    signed_in = netrc.is_file() and "wandb" in netrc.read_text(encoding="utf-8", errors="replace")
    if environment.get("WANDB_API_KEY") or signed_in:
        return Finding("tracking", "W&B", "ok", "signed in: `--track wandb` tracks")
    return Finding("tracking", "W&B", "off", "not signed in: `--track wandb:offline` works", "`wandb login` for online")
