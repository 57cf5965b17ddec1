import importlib.metadata
import re
import tomllib
from collections.abc import Iterator

import pytest

from pneumo.serving.contracts.install_hints import EXTRAS, install_hint, missing_module
from tests.support.paths import ROOT

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
INSTALLED_BY_OTHERS = {
    "libjpeg": "pylibjpeg-libjpeg",
    "openjpeg": "pylibjpeg-openjpeg",
    "plotly": "evidently",
    "starlette": "fastapi",
    "opentelemetry": "opentelemetry-sdk",
}
"""Package that installs a module, if their names differ."""


def requirements(extra: str) -> Iterator[str]:
    listed = PROJECT["optional-dependencies"][extra] if extra else PROJECT["dependencies"]
    for line in listed:
        yield re.split(r"[\[<>=!~; ]", line)[0].lower().replace("_", "-")


def test_the_extra_named_for_a_module_asks_for_its_package() -> None:
    packages = importlib.metadata.packages_distributions()
    for module, extra in EXTRAS.items():
        names = [INSTALLED_BY_OTHERS.get(module, module), *packages.get(module, [])]
        assert {name.lower().replace("_", "-") for name in names} & set(requirements(extra)), module


def test_the_hint_names_a_command_that_works_in_a_checkout() -> None:
    assert install_hint() == "run `pip install .` in a checkout of pneumo"
    assert install_hint("serve") == "run `pip install '.[serve]'` in a checkout of pneumo"


@pytest.mark.parametrize(
    ("module", "message"),
    [
        ("nosuch_module", "nosuch_module is not installed; run `pip install '.[train]'` in a checkout of pneumo"),
        ("dvc_gs", "dvc_gs is not installed; run `pip install 'dvc[gs]'`"),
        ("pneumo.serving.nosuch", "pneumo.serving.nosuch is missing, so this installation of pneumo is incomplete"),
        ("numpy.nosuch", "numpy.nosuch is not installed; run `pip install .` in a checkout of pneumo"),
    ],
)
def test_a_missing_module_is_named_with_the_command_that_installs_it(module: str, message: str) -> None:
    assert missing_module(ModuleNotFoundError(name=module)).startswith(message)


def test_an_error_without_a_name_keeps_its_message_in_one_line() -> None:
    assert missing_module(ModuleNotFoundError("Install X\nfirst.")) == "Install X first."
