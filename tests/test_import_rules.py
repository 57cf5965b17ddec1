"""Modules that a fresh interpreter holds after an import; import-linter checks which module imports which."""

import subprocess
import sys

from tests.support.paths import ROOT


def loaded_by(statement: str, *suspects: str) -> set[str]:
    """Return the suspects that a fresh interpreter holds after a statement."""
    program = f"import sys; {statement}; print(*(name for name in {suspects!r} if name in sys.modules))"
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True, timeout=60
    )
    return set(done.stdout.split())


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
