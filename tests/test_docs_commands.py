"""The commands of the tutorial and the how-to guides, run in order, each page in a folder of its own.

A block with a title is shown with it: one that `needs` something is not run here, one `in a second terminal` goes on
beside those that follow.
"""

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pneumo.pipeline.runs.run import Run
from tests.support.dicoms import make_dicom
from tests.support.paths import ROOT
from tests.support.waiting import until

DOCS = ROOT / "docs"
BLOCK = re.compile(r'^```bash(?: title="([^"\n]*)")?\n(.*?)^```', re.DOTALL | re.MULTILINE)
BESIDE = "in a second terminal"
LIMIT_S = 1500
"""Of a block: on a busy machine all of it takes ten times as long."""


pytestmark = [pytest.mark.slow, pytest.mark.lengthy]


class Terminal:
    """A shell that keeps its working directory between blocks; a service on port 8000 gets a free port instead."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        self.environment = os.environ | {"PATH": path, "PNEUMO_PORT": str(self.port), "COLUMNS": "160"}
        self._place = folder / "where"
        self._beside: list[subprocess.Popen[bytes]] = []

    def run(self, text: str) -> str:
        done = subprocess.run(
            self._words(f"{text}\npwd > '{self._place}'"),
            cwd=self.folder,
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=LIMIT_S,
        )
        assert done.returncode == 0, f"{text}\n{done.stdout}\n{done.stderr}"
        self.folder = Path(self._place.read_text(encoding="utf-8").strip())
        return done.stdout + done.stderr

    def start(self, text: str) -> None:
        """Start a service, and wait until it is ready."""
        with (self.folder / "beside.log").open("wb") as log:
            process = subprocess.Popen(
                self._words(f"exec {text}"), cwd=self.folder, env=self.environment, stdout=log, stderr=log
            )
        self._beside.append(process)

        def ready() -> bool:
            assert process.poll() is None, (self.folder / "beside.log").read_text()
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{self.port}/readyz", timeout=5).close()
            except OSError:
                return False
            return True

        until(ready, timeout=180)

    def close(self) -> None:
        for process in self._beside:
            process.send_signal(signal.SIGINT)  # Ctrl-C
            process.wait(timeout=60)

    def _words(self, text: str) -> list[str]:
        return ["bash", "-euo", "pipefail", "-c", text.replace("127.0.0.1:8000", f"127.0.0.1:{self.port}")]


@contextmanager
def terminal(folder: Path) -> Iterator[Terminal]:
    shutil.copytree(ROOT / "ludwig_configs", folder / "ludwig_configs")
    opened = Terminal(folder)
    try:
        yield opened
    finally:
        opened.close()


def play(page: str, shell: Terminal) -> str:
    """Run the blocks of a page; what they printed."""
    said = ""
    for title, text in BLOCK.findall((DOCS / page).read_text(encoding="utf-8")):
        if title == BESIDE:
            shell.start(text)
        elif not title.startswith("needs "):
            said += shell.run(text)
    return said


def lines(path: Path, number: int = 0) -> list[str]:
    """The commands of a block, without the remarks behind them and those that serve until Ctrl-C."""
    text = BLOCK.findall(path.read_text(encoding="utf-8"))[number][1].replace("\\\n", " ")
    found = [line.split("  # ")[0].rstrip() for line in text.splitlines()]
    return [line for line in found if not line.startswith(("source ", "pneumo serve"))]


def test_the_pages_of_daily_work(tmp_path: Path) -> None:
    """First page, registry and drift in one project, with images, two runs, a service and its log."""
    doctor, import_, check, *others, request = lines(DOCS / "index.md")
    train = "pneumo train ludwig_configs/smoke.yaml -o trainer.epochs=1"

    with terminal(tmp_path) as shell:
        shell.run("pneumo data phantom raw --images 720 --size 128 && python -m zipfile -c chest_xray.zip raw/")
        (tmp_path / "FOLDER").mkdir()
        images = [shutil.copy(path, tmp_path / "FOLDER") for path in sorted(tmp_path.glob("raw/**/*.png"))[::12]]
        Image.open(images[0]).save(tmp_path / "xray.jpeg")
        shell.run(f"{doctor} || [ $? = 1 ]")  # where this machine lacks something
        shell.run("sed -i 's/^  \\(auroc\\|sensitivity\\|specificity\\): .*/  \\1: 0.99/' ludwig_configs/gate.yaml")
        for line in (import_, check, train):
            shell.run(line)
        (first,) = (tmp_path / "runs").iterdir()
        shell.run(f"pneumo promote {first.name}")
        for line in others:
            changed = line.replace("30m", "5m").replace("compare RUN", f"compare {first.name}")
            shell.run(f"{changed} || [ $? = 1 ]" if "int8" in line else changed)  # refused where it changes answers

        said = "".join(shell.run(line) for line in lines(DOCS / "registry.md") + lines(DOCS / "registry.md", 1))
        assert "champion is smoke" in said

        shell.start("pneumo serve")
        assert "probability" in shell.run(request)
        for some in (images[:30], images[30:]):
            files = " ".join(f"-F file=@{path}" for path in some)
            assert "probability" in shell.run(f"curl -sf {files} {request.split()[-1]}")
        shell.run("sleep 2")  # until the rows are in the log
        for line in lines(DOCS / "drift.md"):
            shell.run(f"{line} || [ $? = 1 ]" if " check " in line else line)
    assert "not a medical device" in (tmp_path / "drift-report" / "report.html").read_text(encoding="utf-8")
    assert (tmp_path / "log.parquet").stat().st_size > 1000


def test_how_to_track(tmp_path: Path, phantoms: Path) -> None:
    with terminal(tmp_path) as shell:
        shell.run(f"pneumo data import '{phantoms}' --size 64")
        play("howto/tracking.md", shell)

    (run,) = (tmp_path / "runs").iterdir()
    kinds = [path.name.rpartition("-")[2] for path in run.glob("wandb/offline-run-*")]
    assert len(kinds) == 3


def test_the_tutorial(tmp_path: Path) -> None:
    with terminal(tmp_path) as shell:
        said = play("tutorial.md", shell)

    data = json.loads((tmp_path / "data" / "dataset.json").read_text(encoding="utf-8"))
    assert {split: sum(of.values()) for split, of in data["counts"].items()} == {
        "train": 448,
        "validation": 96,
        "test": 96,
    }
    assert sum(data["patients"].values()) == 256
    assert "exit code 1" in said
    assert '"label":"PNEUMONIA"' in said or '"label":"NORMAL"' in said
    (run,) = (tmp_path / "runs").iterdir()
    assert {"report.html", "metrics.json", "bundle"} <= {path.name for path in run.iterdir()}
    assert len((tmp_path / "predictions.csv").read_text(encoding="utf-8").splitlines()) == 1 + 48
    assert (tmp_path / "heat.png").read_bytes().startswith(b"\x89PNG")
    assert "not a medical device" in (tmp_path / "drift-report" / "report.html").read_text(encoding="utf-8")


def test_how_to_use_own_images(tmp_path: Path) -> None:
    with terminal(tmp_path) as shell:
        said = play("howto/own-data.md", shell)

    assert "image,label,split,patient" in said
    assert "60 images in data-from-table; no file skipped" in said


def test_how_to_see_every_case(tmp_path: Path, trained: Run, exported: Path) -> None:
    shutil.copytree(trained.folder, tmp_path / "runs" / trained.name)
    shutil.copytree(exported, tmp_path / "runs" / trained.name / "bundle")
    with terminal(tmp_path) as shell:
        play("howto/cases.md", shell)

    assert (tmp_path / "cases" / trained.name / "index.html").is_file()


def test_how_to_read_dicom(tmp_path: Path, phantoms: Path, exported: Path) -> None:
    for kind in ("NORMAL", "PNEUMONIA"):
        (tmp_path / "dicom" / kind).mkdir(parents=True)
        for number, path in enumerate(sorted(phantoms.rglob(f"{kind}/*.png"))[:20], 1):
            inverted = 4095 - np.asarray(Image.open(path).convert("L"), dtype=np.uint16) * 16
            data = make_dicom(inverted, PhotometricInterpretation="MONOCHROME1", BitsStored=12)
            (tmp_path / "dicom" / kind / f"{number}.dcm").write_bytes(data)
    shutil.copytree(exported, tmp_path / "bundle")

    with terminal(tmp_path) as shell:
        said = play("howto/dicom.md", shell)

    assert "40 images in data-dicom" in said
    assert said.count("dicom/PNEUMONIA/") == 20
    assert '"predictions":[{' in said


def test_how_to_use_a_gpu(tmp_path: Path) -> None:
    with terminal(tmp_path) as shell:
        said = play("howto/gpu.md", shell) + play("howto/backbones.md", shell)

    assert "efficientnet_lite0.yaml: valid" in said
    assert "frozen_vit.yaml: valid" in said


def test_the_python_lines_of_the_service_page(tmp_path: Path, phantoms: Path, exported: Path) -> None:
    (python,) = re.findall(
        r"^```python\n(.*?)^```", (DOCS / "service.md").read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE
    )
    image = Image.open(next(phantoms.rglob("*.png"))).convert("L")
    image.save(tmp_path / "a.jpeg")
    (tmp_path / "b.dcm").write_bytes(make_dicom(np.asarray(image)))
    shutil.copytree(exported, tmp_path / "bundle")

    with terminal(tmp_path) as shell:
        shell.start("pneumo serve --model ./bundle")
        shell.environment["PYTHONPATH"] = str(ROOT)
        shell.run(f"python - <<'END'\n{python}\nEND")


def test_every_how_to_guide_is_run() -> None:
    played = set(re.findall(r'play\("(.+?)", shell\)', Path(__file__).read_text(encoding="utf-8")))
    guides = {path.relative_to(DOCS).as_posix() for path in (DOCS / "howto").glob("*.md")}

    assert played == guides | {"tutorial.md"}
