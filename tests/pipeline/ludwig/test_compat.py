"""Rename each internal name of Ludwig and Ray: a needed one is refused, a speed-up gives way to Ludwig's own way."""

import ast
import importlib
import inspect
import json
import re
import sys
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from types import CodeType, FunctionType, ModuleType
from typing import Any

import numpy as np
import pandas as pd
import pytest

from pneumo.pipeline import training
from pneumo.pipeline.config import Experiment
from pneumo.pipeline.data.manifest import Dataset
from pneumo.pipeline.ludwig import compat, components
from pneumo.pipeline.ludwig.compat import REACHES, Reach
from pneumo.pipeline.runs.reporter import Reporter
from pneumo.pipeline.runs.run import Run
from pneumo.serving.contracts.errors import MachineError
from tests.support.paths import ROOT

SEAM = ROOT / "pipeline" / "ludwig"
NOT_LUDWIGS = {
    *("_BatchNorm", "_parameters", "_buffers", "_foreach_lerp_"),  # torch
    *("_DenseBlock", "_DenseLayer", "_Transition"),  # torchxrayvision
    *("_decode_dataclass", "_asdict"),  # dataclasses_json's, replaced only if there
    *("_replace", "_min", "_max"),  # a named tuple's; endings of options
}
PUBLIC = {"ludwig.api", "ludwig.error", "ludwig.constants"}


@dataclass(frozen=True)
class Name:
    """One name of the table, with the parameter or value that goes with it."""

    reach: Reach
    owner: str
    name: str
    parameter: str = ""
    value: str = ""

    def __str__(self) -> str:
        return f"{self.reach.when}: {self.owner}.{self.name}" + (f"({self.parameter})" if self.parameter else "")

    @property
    def holder(self) -> Any:
        module, _, kind = self.owner.partition(":")
        found = importlib.import_module(module)
        return getattr(found, kind) if kind else found


def list_names() -> Iterator[Name]:
    for reach in REACHES:
        for owner, name, parameters, value in reach.names:
            if name != "__init__":
                yield Name(reach, owner, name, value=value)
            for parameter in parameters.split(", ") if parameters else ():
                yield Name(reach, owner, name, parameter)


NAMES = list({str(name): name for name in list_names()}.values())


def change_code(monkeypatch: pytest.MonkeyPatch, function: Any, before: str, after: str) -> None:
    """Rename a name, a parameter or an attribute in a function and in the functions inside it."""

    def change(code: CodeType) -> CodeType:
        def swap(names: tuple[Any, ...]) -> tuple[Any, ...]:
            return tuple(after if name == before else name for name in names)

        return code.replace(
            co_names=swap(code.co_names),
            co_varnames=swap(code.co_varnames),
            co_consts=tuple(
                change(each) if isinstance(each, CodeType) else swap((each,))[0] for each in code.co_consts
            ),
        )

    if isinstance(function, FunctionType) and (changed := change(function.__code__)) != function.__code__:
        monkeypatch.setattr(function, "__code__", changed)


def move(monkeypatch: pytest.MonkeyPatch, owner: Any, name: str) -> None:
    monkeypatch.setattr(owner, f"{name}_renamed", vars(owner)[name], raising=False)
    monkeypatch.delattr(owner, name)


def rename(monkeypatch: pytest.MonkeyPatch, name: Name) -> None:
    """Rename what one line of the table names, where it is defined."""
    holder = name.holder
    if name.value:
        monkeypatch.setattr(holder, name.name, "renamed")
    elif name.parameter:
        found = getattr(holder, name.name)
        made_by = "__init__" if "__init__" in vars(found) else "__new__"  # of a class, or of a named tuple
        function = inspect.unwrap(vars(found)[made_by] if isinstance(found, type) else found)
        change_code(monkeypatch, function, name.parameter, "renamed")
    else:
        for owner in holder.__mro__ if isinstance(holder, type) else (holder,):
            if name.name in vars(owner):
                move(monkeypatch, owner, name.name)
            for value in list(vars(owner).values()) if isinstance(holder, type) else ():
                change_code(monkeypatch, value, name.name, f"{name.name}_renamed")


def rename_everywhere(monkeypatch: pytest.MonkeyPatch, name: Name) -> None:
    """Rename as a new version of Ludwig would: where it is defined and wherever Ludwig uses it."""
    modules = [module for key, module in list(sys.modules.items()) if key.startswith("ludwig.") and module]
    if ":" not in name.owner:
        modules = [name.holder]
        move(monkeypatch, name.holder, name.name)
    functions: set[Any] = set()
    for module in modules:
        for value in list(vars(module).values()):
            if isinstance(value, type) and value.__module__.startswith("ludwig."):
                if ":" in name.owner and name.name in vars(value):
                    move(monkeypatch, value, name.name)
                for member in list(vars(value).values()):
                    parts = [getattr(member, part, None) for part in ("fget", "fset", "__func__")]
                    functions.update(inspect.unwrap(each) for each in (member, *parts) if callable(each))
            elif callable(value):
                functions.add(inspect.unwrap(value))
    for function in functions:
        change_code(monkeypatch, function, name.name, f"{name.name}_renamed")


@pytest.fixture(autouse=True)
def _nothing_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compat, "_WARNED", set())


def test_the_installed_versions_lack_nothing(ludwig: ModuleType) -> None:
    said: list[str] = []
    for when in {reach.when for reach in REACHES}:
        compat.check_names(when, said.append)
    assert said == []


@pytest.mark.parametrize("name", NAMES, ids=str)
def test_a_name_that_is_gone_is_refused_or_left_out_in_one_line(
    name: Name, ludwig: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    rename(monkeypatch, name)
    package = name.owner.partition(".")[0].partition(":")[0].title()
    said: list[str] = []

    if name.reach.kind == "speed-up":
        compat.check_names(name.reach.when, said.append)
        compat.check_names(name.reach.when, said.append)
        assert not compat.has_names(name.reach.user)
        [line] = said
        assert line.endswith(name.reach.purpose)
    else:
        with pytest.raises(MachineError) as refused:
            compat.check_names(name.reach.when, said.append)
        line = str(refused.value)
        assert said == []
        assert f"pip install {package.lower()}=={compat.VERSIONS[package]}" in line
    assert f"{name.owner.replace(':', '.')}.{name.name}" in line
    assert line.startswith(f"{package} {version(package)} (pneumo was written for {compat.VERSIONS[package]}) lacks ")
    assert "\n" not in line


def test_an_import_that_fails_is_refused_with_both_versions(
    ludwig: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delitem(sys.modules, "pneumo.pipeline.ludwig.pixel_backend", raising=False)
    move(monkeypatch, importlib.import_module("ludwig.data.sampler"), "DistributedSampler")

    with pytest.raises(
        MachineError, match=r"^Ludwig .* does not take pneumo.pipeline.ludwig.pixel_backend: cannot import .* `pip in"
    ):
        compat.check_ludwig(print)


@pytest.mark.slow
@pytest.mark.parametrize("user", sorted({reach.user for reach in REACHES if reach.kind == "speed-up"}))
def test_a_training_without_a_speed_up_gives_the_same_numbers(
    user: str, trained: Run, tiny: Experiment, dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in NAMES:
        if name.reach.kind == "speed-up" and name.reach.user == user and not name.parameter:
            rename_everywhere(monkeypatch, name)
    said: list[str] = []

    run = training.train(tiny, dataset, root=tmp_path, seed=7, reporter=Reporter(said.append))

    assert any("lacks" in line for line in said)
    rounds, expected = (json.loads(each.history.read_text(encoding="utf-8")) for each in (run, trained))
    assert [entry | {"time": 0} for entry in rounds] == [entry | {"time": 0} for entry in expected]
    logits, expected = (np.stack(list(pd.read_parquet(each.predictions)["logits"])) for each in (run, trained))
    np.testing.assert_array_equal(logits, expected)


def test_the_versions_are_those_of_the_project() -> None:
    requirements = (ROOT / "requirements-train.lock").read_text(encoding="utf-8")
    for package, number in compat.VERSIONS.items():
        assert f"{package.lower()}=={number} " in requirements


def test_only_the_seam_may_import_ludwig() -> None:
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["importlinter"]
    [contract] = [each for each in settings["contracts"] if each["id"] == "ludwig-seam"]
    assert contract["source_modules"] == ["pneumo"]
    assert contract["forbidden_modules"] == ["ludwig"]
    assert contract["ignore_imports"] == ["pneumo.pipeline.ludwig.** -> ludwig"]


def list_reaches(tree: ast.Module, *, with_assignments: bool) -> set[str]:
    """Return the names by which a module reaches into another package's insides."""
    own: set[str] = set()
    reaches: set[str] = set()
    for node in ast.walk(tree):
        match node:
            case ast.FunctionDef(name=name) | ast.ClassDef(name=name):
                own.add(name)
            case ast.Attribute(value=ast.Name(id="self" | "cls"), attr=attr, ctx=ast.Store()):
                own.add(attr)
            case ast.Attribute(attr=attr, ctx=ast.Store()) if with_assignments:
                reaches.add(attr)
            case ast.Call(func=ast.Name(id="setattr") | ast.Attribute(attr="replace_attribute"), args=[_, name, _]):
                reaches.update([str(name.value)] if isinstance(name, ast.Constant) else ())
            case ast.Attribute(attr=name) | ast.Constant(value=str(name)) | ast.keyword(arg=str(name)):
                reaches.update(re.findall(r"^_[a-z]\w+$", name))
    return (reaches | list_late_imports(tree)) - own


def list_late_imports(tree: ast.Module) -> set[str]:
    """Return what functions import from Ludwig's insides; what modules import is tried when Ludwig is loaded."""
    functions = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)]
    imports = [part for node in functions for part in ast.walk(node) if isinstance(part, ast.ImportFrom)]
    late = [part for part in imports if (part.module or "").startswith("ludwig") and part.module not in PUBLIC]
    return {alias.name for part in late for alias in part.names}


OWN_OBJECTS = {
    "config_class",  # of our encoders
    "batch_size",  # of a copied config
    "forward",  # of a folded layer
    *("count", "model", "training_set_metadata", "tempdir", "batches"),
    *("class_weights", "class_similarities_temperature"),  # Ludwig reads them of each loss, and some losses lack them
    *("thread", "loader", "__loader__", "__class__"),  # of modules that wait to be loaded
    *("handlers", "propagate", "level", "showwarning"),
}


@pytest.mark.parametrize(
    "file",
    [*SEAM.rglob("*.py"), *(ROOT / "pipeline" / "sweep").glob("*.py"), ROOT / "pipeline" / "training" / "cluster.py"],
    ids=lambda file: str(file.relative_to(ROOT)),
)
def test_no_module_reaches_past_the_table(file: Path) -> None:
    if file.name in ("schema_extract.py", "compat.py"):  # a tool for developers; the table itself
        return
    table = {part for name in NAMES for part in (name.name, name.parameter, name.owner.partition(":")[2])}
    tree = ast.parse(file.read_text(encoding="utf-8"))
    assert list_reaches(tree, with_assignments=file.is_relative_to(SEAM)) <= table | NOT_LUDWIGS | OWN_OBJECTS


def test_what_overrides_ludwig_is_in_the_table(ludwig: ModuleType) -> None:
    """A method that overrides one of Ludwig's would silently stop to, if Ludwig renamed its own."""
    names = {name.name for name in NAMES}
    unlisted = set()
    modules = ("callback", "pixel_backend", "trainer_profile", "cluster.driver", "cluster.parallel")
    for module in (*components.MODULES, *(f"pneumo.pipeline.ludwig.{name}" for name in modules)):
        for kind in vars(importlib.import_module(module)).values():
            if not isinstance(kind, type) or not kind.__module__.startswith("pneumo."):
                continue
            theirs = [base for base in kind.__mro__ if base.__module__.startswith("ludwig.")]
            own = {name for name in vars(kind) if not name.startswith(("__", "_abc_", "model_"))}
            for name in own - names - {"forward"}:
                over = [vars(base)[name] for base in theirs if name in vars(base)]
                if over and not any(getattr(each, "__isabstractmethod__", False) for each in over):
                    unlisted.add(f"{kind.__name__}.{name}")
    assert unlisted == set()
