"""The Dockerfile: linted, consistent with `deploy/`, and its service carried out step by step without Docker."""

import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from pneumo.pipeline.data.manifest import Dataset, Split
from tests.support import dockerfile as docker
from tests.support import installed
from tests.support.paths import ROOT

LOCKS = ("serve", "drift", "train")
MOST_MB = 700
"""What the service may take installed."""
ABSENT = ("torch", "torchvision", "ludwig", "ray", "pandas", "sklearn", "evidently", "pip")


stages = docker.read(ROOT / "Dockerfile")


def pinned(lock: str) -> dict[str, set[str]]:
    """Hashes by `name==version` of a lock."""
    text = (ROOT / lock).read_text(encoding="utf-8")
    found = re.findall(r"^(\S+==\S+)[^\n]*\n((?:    --hash=\S+[ \\]*\n)+)", text, flags=re.MULTILINE)
    return {name: set(re.findall(r"--hash=(\S+)", hashes)) for name, hashes in found}


def test_hadolint_finds_nothing() -> None:
    done = subprocess.run(
        [Path(sys.executable).with_name("hadolint"), "Dockerfile"], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_hadolint_finds_what_is_wrong(tmp_path: Path) -> None:
    (tmp_path / "Dockerfile").write_text("FROM python\nRUN pip install numpy\n")
    done = subprocess.run([Path(sys.executable).with_name("hadolint"), tmp_path / "Dockerfile"], capture_output=True)
    assert done.returncode == 1


@pytest.mark.parametrize("name", LOCKS)
def test_locks_of_the_images_hold_what_the_lock_of_everything_holds(name: str) -> None:
    everything, own = pinned("requirements.lock"), pinned(f"requirements-{name}.lock")
    assert len(own) > 30
    assert own == {each: everything[each] for each in own}


def test_the_service_is_locked_without_what_trains() -> None:
    names = {each.split("==")[0] for each in pinned("requirements-serve.lock")}
    assert not names & {"torch", "ludwig", "ray", "evidently", "pandas", "dvc", "pytest"}
    assert {"fastapi", "onnxruntime", "psycopg"} <= names


def test_locks_name_no_registry_host() -> None:
    for name in LOCKS:
        assert "://" not in (ROOT / f"requirements-{name}.lock").read_text(encoding="utf-8")


@pytest.mark.parametrize("name", ["serve", "drift", "train"])
def test_an_image_runs_without_rights_a_command_that_exists(name: str) -> None:
    assert docker.inherited(stages, name, "USER") == "10001:10001"
    command = docker.words(docker.inherited(stages, name, "CMD"))
    assert command in (["pneumo", "serve"], ["pneumo", "--help"])
    if name != "train":
        assert all(step[0] != "RUN" for step in stages[name].steps), "what installs is not in the image"
    assert list(stages)[-1] == "serve", "`docker build .` makes the service"


def test_user_and_port_are_those_of_the_manifests() -> None:
    pod = yaml.safe_load((ROOT / "deploy/kubernetes/deployment.yaml").read_text(encoding="utf-8"))
    spec = pod["spec"]["template"]["spec"]
    uid, gid = docker.inherited(stages, "serve", "USER").split(":")
    assert (spec["securityContext"]["runAsUser"], spec["securityContext"]["runAsGroup"]) == (int(uid), int(gid))
    (port,) = spec["containers"][0]["ports"]
    assert docker.inherited(stages, "serve", "EXPOSE") == str(port["containerPort"])
    assert docker.environment(stages, "serve")["PNEUMO_PORT"] == str(port["containerPort"])


def test_what_is_copied_is_in_the_context_and_nothing_private_is() -> None:
    ignored = (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()
    allowed = {line[1:] for line in ignored if line.startswith("!")}
    copied = {
        source
        for stage in stages.values()
        for name, rest in stage.steps
        if name == "COPY" and "--from" not in rest
        for source in [word for word in shlex.split(rest) if not word.startswith("--")][:-1]
    }
    assert ignored[1] == "*", "everything is out but what is named"
    for source in copied:
        assert (ROOT / source).exists()
        assert any(Path(source).match(pattern) for pattern in allowed), source
    assert not allowed & {"data", "models", "runs", "keys.yaml", ".git", "."}


class Prefix:
    """A folder in which stages are carried out as if it were the root of an image."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.workdir = root
        subprocess.run([self.python(), "-m", "venv", root / "python"], check=True)

    def python(self) -> Path:
        """This machine's Python, or a copy of it where only root gets to it."""
        prefix, version = Path(sys.base_prefix), f"python3.{sys.version_info.minor}"
        if os.geteuid() != 0 or all(folder.stat().st_mode & 0o001 for folder in (prefix, *prefix.parents)):
            return prefix / "bin" / version
        local = self.root / "usr" / "local"
        left_out = shutil.ignore_patterns("site-packages", "test", "__pycache__", "config-*")
        shutil.copytree(prefix / "lib" / version, local / "lib" / version, symlinks=True, ignore=left_out)
        for library in (prefix / "lib").glob("libpython*.so*"):  # found by LD_LIBRARY_PATH
            shutil.copy(library, local / "lib")
        (local / "bin").mkdir()
        return Path(shutil.copy(prefix / "bin" / version, local / "bin" / version))

    def there(self, text: str) -> str:
        """Paths of the image as paths of this machine."""
        return re.sub(r"(?:(?<![\w.:/])|(?<=:///))/(opt|src|wheels|models|keys|tmp)\b", rf"{self.root}/\1", text)

    def run(self, stage: Any, env: dict[str, str]) -> None:
        for name, rest in stage.steps:
            if name == "WORKDIR":
                self.workdir = Path(self.there(rest))
                self.workdir.mkdir(parents=True, exist_ok=True)
            elif name == "COPY":
                self.copy(rest)
            elif name == "RUN":
                subprocess.run(["sh", "-ec", self.there(rest)], cwd=self.workdir, env=env, check=True, timeout=500)

    def copy(self, rest: str) -> None:
        *sources, target = [word for word in rest.split() if not word.startswith("--")]
        if "--from=" in rest:
            assert sources == [target] == ["/opt/pneumo"], "what is built lies where it runs"
            return
        installed.copy_sources(sources, self.workdir)


@pytest.fixture(scope="module")
def image() -> Iterator[Prefix]:
    """The service installed by the Dockerfile's own commands."""
    root = Path(tempfile.mkdtemp(prefix="pneumo-image-"))
    root.chmod(0o755)  # its user gets there, unlike into pytest's folders
    prefix = Prefix(root)
    path = f"{prefix.root}/python/bin:{os.environ['PATH']}"
    for stage in docker.lineage(stages, "build-serve"):
        env = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "VIRTUAL_ENV"))}
        env |= docker.environment(stages, stage.name) | {"PATH": path}
        env.pop("PIP_NO_CACHE_DIR", None)  # keeps a layer small; here it would only cost time
        prefix.run(stage, env)
    yield prefix
    shutil.rmtree(prefix.root)


@pytest.mark.slow
@pytest.mark.lengthy
def test_the_installed_service_is_small_and_holds_nothing_that_trains(image: Prefix) -> None:
    size = installed.megabytes(image.root / "opt" / "pneumo")
    print(f"installed: {size:.0f} MB")
    assert 50 < size < MOST_MB
    installed.check_absent(image.root / "opt" / "pneumo" / "bin" / "python", *ABSENT)


@pytest.mark.slow
@pytest.mark.lengthy
def test_the_service_answers_as_the_image_starts_it(image: Prefix, exported: Path, dataset: Dataset) -> None:
    """Without rights, where only /tmp can be written, with the image's environment; then the image's health check."""
    from pneumo.serving.access.api_keys import add_key

    uid = int(docker.inherited(stages, "serve", "USER").split(":")[0])
    for folder in ("models", "keys", "tmp"):
        (image.root / folder).mkdir(exist_ok=True)
    shutil.copytree(exported, image.root / "models" / "tiny", dirs_exist_ok=True)
    _, key = add_key(image.root / "keys" / "keys.yaml", "ward-3")
    for path in (*(image.root / "models").rglob("*"), *(image.root / "keys").rglob("*")):
        path.chmod(0o755 if path.is_dir() else 0o644)
    port = installed.free_port()
    env = {name: image.there(value) for name, value in docker.environment(stages, "serve").items()}
    env["PATH"] = env["PATH"].replace("$PATH", os.environ["PATH"])
    assert env["PNEUMO_HOST"] == "0.0.0.0"  # asks for keys, though the test listens on this machine alone
    env |= {"PNEUMO_HOST": "127.0.0.1", "PNEUMO_AUTH": "on", "PNEUMO_PORT": str(port)}
    env["LD_LIBRARY_PATH"] = str(image.root / "usr" / "local" / "lib")
    env["PNEUMO_MODEL"] = str(image.root / "models" / "tiny")
    if user := (uid if os.geteuid() == 0 else None):
        os.chown(image.root / "tmp", uid, uid)
    command = docker.words(docker.inherited(stages, "serve", "CMD"))
    program = shutil.which(command[0], path=env["PATH"])
    assert program == str(image.root / "opt" / "pneumo" / "bin" / "pneumo")

    check = docker.inherited(stages, "serve", "HEALTHCHECK").partition("CMD ")[2]

    def healthy() -> int:
        return subprocess.run(docker.words(check), env=env, capture_output=True, timeout=30).returncode

    with installed.served([program, *command[1:]], port, cwd=image.root / "opt", env=env, user=user) as server:
        image_of = dataset.path(dataset.select(Split.TEST)[0]).read_bytes()
        prediction = installed.ask(port, image_of, {"Authorization": f"Bearer {key}"})
        assert healthy() == 0
        status = Path(f"/proc/{server.pid}/status")
        if user and status.exists():
            assert f"Uid:\t{uid}\t{uid}" in status.read_text(encoding="utf-8")
    assert prediction["label"] in ("NORMAL", "PNEUMONIA")
    assert healthy() != 0
    assert (image.root / "tmp" / "predictions.sqlite3").is_file()
