import ast
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.paths import ROOT

FORBIDDEN = {"torch", "torchvision", "ludwig", "ray"}
MODULES = sorted((ROOT / "serving").rglob("*.py"))
RAY_APP = ROOT / "serving" / "ray_app.py"
"""What Ray Serve starts: the one module of the service that may know Ray."""


def imported_names(path: Path) -> set[str]:
    """Top-level packages that a file imports anywhere in it."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            names.add((node.module or "").partition(".")[0])
    return names


def imported_modules(path: Path) -> set[str]:
    """Modules, and names in modules, that a file imports anywhere in it."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names |= {f"{node.module}.{alias.name}" for alias in node.names} | {str(node.module)}
    return names


def loaded_by(statement: str, *suspects: str) -> set[str]:
    """Which of the suspects a fresh interpreter holds after a statement."""
    program = f"import sys; {statement}; print(*(name for name in {suspects!r} if name in sys.modules))"
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True, timeout=60
    )
    return set(done.stdout.split())


@pytest.mark.parametrize("path", MODULES, ids=lambda path: path.stem)
def test_serving_never_imports_what_makes_models(path):
    assert not imported_names(path) & (FORBIDDEN - {"ray"} if path == RAY_APP else FORBIDDEN)


@pytest.mark.parametrize("folder", ["serving", "pipeline"])
def test_nothing_imports_what_knows_ray(folder):
    for path in (ROOT / folder).rglob("*.py"):
        assert "pneumo.serving.ray_app" not in imported_modules(path), path


def test_the_running_service_holds_nothing_that_makes_models():
    statement = "import pneumo.serving.http.app, pneumo.serving.process.server, pneumo.serving.inference.offline"
    assert not loaded_by(statement, "pipeline", "torch", "ludwig", "ray", "pandas", "sklearn", "matplotlib")


def test_the_command_line_loads_nothing_heavy():
    heavy = (
        "numpy",
        "pandas",
        "torch",
        "ludwig",
        "ray",
        "fastapi",
        "onnxruntime",
        "pydantic",
        "PIL",
        "sklearn",
        "yaml",
    )
    assert not loaded_by("import pneumo.pipeline.cli", *heavy)


def test_reading_an_image_or_a_bundle_needs_no_web_framework_and_no_runtime():
    modules = ("images.preparation", "images.descriptors", "model.bundle", "model.outlier_score", "model.registry")
    statement = "import " + ", ".join(f"pneumo.serving.{module}" for module in modules)
    assert not loaded_by(statement, "fastapi", "starlette", "uvicorn", "onnxruntime")
