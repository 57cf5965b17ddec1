"""pneumo installed as a wheel, in a project whose own modules have names that pneumo's folders have."""

import json
import os
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

from pneumo.serving.drift.verdict import DriftCheck
from pneumo.serving.predictions.store import LogStore
from tests.support import installed
from tests.support.log_rows import row
from tests.support.references import make_judged, rows_of

pytestmark = pytest.mark.slow

SOURCES = ("pneumo", "pipeline", "serving", "ludwig_configs", "pyproject.toml", "setup.py", "README.md", "LICENSE")
FOREIGN = ("pipeline.py", "serving/__init__.py", "config.py", "tests/__init__.py", "data/__init__.py")


def copy_tree(target: Path) -> Path:
    """Copy the sources as a zip archive of them is unpacked: each symbolic link is a file with its target in it."""
    installed.copy_sources(SOURCES, target)
    for name in ("pipeline", "serving"):
        (target / "pneumo" / name).write_text(f"../{name}")
    return target


def build(hook: str, source: Path, out: Path) -> Path:
    """Call a hook of the build backend as pip does, in a process whose working directory is the source tree."""
    program = f"import sys; from setuptools import build_meta; build_meta.{hook}(sys.argv[1])"
    done = subprocess.run(
        [sys.executable, "-c", program, str(out)], cwd=source, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr[-3000:]
    (made,) = out.iterdir()
    return made


def names_in(wheel: Path) -> set[str]:
    with zipfile.ZipFile(wheel) as archive:
        return {name for name in archive.namelist() if not name.endswith("/")}


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return copy_tree(tmp_path_factory.mktemp("source") / "pneumo-main")


@pytest.fixture(scope="module")
def wheel(tree: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build("build_wheel", tree, tmp_path_factory.mktemp("wheel"))


def test_a_tree_without_symbolic_links_builds_a_wheel_with_every_file(tree: Path, wheel: Path) -> None:
    expected = {f"pneumo/{path.name}" for path in (tree / "pneumo").iterdir() if path.suffix} | {"pneumo/py.typed"}
    for folder in ("pipeline", "serving"):
        files = (path for path in (tree / folder).rglob("*") if path.is_file() and "__pycache__" not in path.parts)
        expected |= {f"pneumo/{path.relative_to(tree).as_posix()}" for path in files}
    starters = "pneumo/pipeline/project/starters"
    expected |= {f"{starters}/{path.name}" for path in (tree / "ludwig_configs").iterdir()}

    names = names_in(wheel)
    assert {name for name in names if not name.startswith("pneumo-")} == expected
    assert "pneumo-0.1.0.dist-info/licenses/LICENSE" in names
    assert {"pneumo/pipeline/cli/__init__.py", "pneumo/serving/ray_app.py", f"{starters}/gate.yaml"} <= names


def test_a_wheel_from_the_source_distribution_holds_the_same_files(tree: Path, wheel: Path, tmp_path: Path) -> None:
    archive = build("build_sdist", tree, tmp_path / "sdist")
    with tarfile.open(archive) as files:
        files.extractall(tmp_path, filter="data")
    (unpacked,) = tmp_path.glob("pneumo-*")

    assert names_in(build("build_wheel", unpacked, tmp_path / "wheel")) == names_in(wheel)


def test_what_an_earlier_build_left_in_the_tree_gets_into_no_wheel(tree: Path, wheel: Path, tmp_path: Path) -> None:
    source = tmp_path / "used"
    shutil.copytree(tree, source, ignore=shutil.ignore_patterns("*.egg-info"))
    for name in ("build/lib/pneumo/deleted.py", "serving/pages/notes.txt", "pneumo.egg-info/SOURCES.txt"):
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        (source / name).write_text("serving/pages/notes.txt\n")

    assert names_in(build("build_wheel", source, tmp_path / "wheel")) == names_in(wheel)


@pytest.fixture(scope="module")
def venv(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An environment with the wheel, in which all other packages are those of this one, the editable pneumo not."""
    folder = tmp_path_factory.mktemp("venv") / "venv"
    subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True, timeout=300)
    python = folder / "bin" / "python"
    install = [str(python), "-m", "pip", "install", "--quiet", "--no-deps", "--no-index", str(wheel)]
    subprocess.run(install, check=True, timeout=300)
    # a line of a .pth file goes to the end of sys.path; .pth files there, such as the editable install's, do nothing
    own = subprocess.run(
        [str(python), "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout.strip()
    others = dict.fromkeys(sysconfig.get_path(name) for name in ("purelib", "platlib"))
    Path(own, "others.pth").write_text("".join(f"{path}\n" for path in others))
    return folder


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A project with modules of its own that refuse to be imported."""
    folder = tmp_path / "project"
    for name in FOREIGN:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(f"raise RuntimeError('{name} of the project was imported')\n")
    return folder


@pytest.fixture(params=[None, "."], ids=["alone", "PYTHONPATH"])
def variables(request: pytest.FixtureRequest) -> dict[str, str]:
    """Environment variables, once with the project on PYTHONPATH."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("PNEUMO_", "PYTHON"))}
    return kept | ({"PYTHONPATH": request.param} if request.param else {})


def run(command: Sequence[object], project: Path, variables: Mapping[str, str]) -> str:
    done = subprocess.run(
        [str(part) for part in command], cwd=project, env=dict(variables), capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert "of the project was imported" not in done.stderr
    return done.stdout


def test_torch_and_pneumo_are_imported_beside_modules_of_the_same_names(
    venv: Path, project: Path, variables: dict[str, str]
) -> None:
    program = (
        "import torch, pneumo, sys\n"
        "from pneumo import Client, train\n"
        "finders = [type(finder).__name__ for finder in sys.meta_path]\n"
        "print(pneumo.__file__, pneumo.__version__, '_TriggerFinder' in finders)"
    )
    file, version, hooked = run([venv / "bin" / "python", "-c", program], project, variables).split()
    assert Path(file).is_relative_to(venv)
    assert (version, hooked) == ("0.1.0", "True")


def test_the_command_works_beside_modules_of_the_same_names(
    venv: Path, project: Path, variables: dict[str, str]
) -> None:
    for command in ([venv / "bin" / "pneumo"], [venv / "bin" / "python", "-m", "pneumo"]):
        assert "Usage: " in run([*command, "--help"], project, variables)
        assert "train" in run([*command, "doctor"], project, variables)


@pytest.mark.lengthy
@pytest.mark.parametrize("variables", ["."], indirect=True, ids=["PYTHONPATH"])
def test_a_scheduled_drift_check_works_beside_modules_of_the_same_names(
    venv: Path, project: Path, variables: dict[str, str], tmp_path: Path
) -> None:
    bundle = make_judged(tmp_path / "bundle")
    log = f"sqlite:///{tmp_path / 'log.sqlite3'}"
    store = LogStore(log)
    store.prepare()
    for number, image in enumerate(rows_of(bundle, range(500, 560))):
        measured = {name: getattr(image, name) for name in ("descriptors", "embedding", "probability", "outlier_score")}
        store.add([row(number, model=bundle.info.name, version=bundle.info.version, **measured).values()])
    program = (
        "import json, sys\n"
        "from pathlib import Path\n"
        "from pneumo.serving.drift.schedule import build_job_command\n"
        "from pneumo.serving.model.bundle import Bundle\n"
        "print(json.dumps(build_job_command(Bundle.open(Path(sys.argv[1])))))"
    )
    python = venv / "bin" / "python"
    command = json.loads(run([python, "-c", program, bundle.folder], project, variables))
    assert command[0] == str(python)

    check = DriftCheck.model_validate_json(run(command, project, variables | {"PNEUMO_LOG_URL": log}))

    assert (check.model, check.images) == (bundle.info.name, 60)
