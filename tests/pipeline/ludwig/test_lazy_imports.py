import gc
import importlib
import importlib.util
import os
import pickle
import subprocess
import sys
import threading
import warnings
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import yaml

from pneumo.pipeline.ludwig import lazy_imports

SOURCE = """
import sys, warnings
sys.late_loads.append(__name__)
warnings.warn("late", stacklevel=2)
VALUE = 1
class Base:
    pass
def add(a, b):
    return a + b
"""


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Make a package `late` with the modules `part`, which is in the table, and `other`, which is not."""
    folder = tmp_path / "late"
    folder.mkdir()
    for name in ("__init__", "part", "other"):
        (folder / f"{name}.py").write_text(SOURCE, encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(sys, "late_loads", [], raising=False)
    names = {name: lazy_imports._LazyName("late", name) for name in ("Base", "add")}
    monkeypatch.setitem(lazy_imports._LAZY, "late", dict(names))
    monkeypatch.setitem(lazy_imports._LAZY, "late.part", {})
    yield folder
    lazy_imports._waiting -= {"late", "late.part"}
    for name in ("late", "late.part", "late.other"):
        lazy_imports._modules.pop(name, None)
        sys.modules.pop(name, None)


def import_late() -> Any:
    with lazy_imports.import_lazily():
        return importlib.import_module("late")


def loads() -> list[str]:
    return list(sys.late_loads)  # type: ignore[attr-defined]


def test_a_module_is_loaded_at_its_first_use(package: Path) -> None:
    late = import_late()
    assert importlib.util.find_spec("late") is not None
    assert loads() == []

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        assert late.VALUE == 1
    assert [str(each.message) for each in caught] == ["late"]
    assert late is sys.modules["late"]
    assert type(late) is ModuleType
    assert late.__loader__ is late.__spec__.loader
    assert not isinstance(late.Base, lazy_imports._LazyName)
    assert {"VALUE", "Base", "add"} <= set(dir(late))
    with pytest.raises(AttributeError, match="module 'late' has no attribute 'missing'"):
        late.missing  # noqa: B018
    assert loads() == ["late"]


def test_names_of_the_table_wait_too(package: Path) -> None:
    with lazy_imports.import_lazily():
        from late import Base, add  # type: ignore[import-not-found]
    assert loads() == []
    assert lazy_imports.is_waiting("late")
    assert add.__name__ == "add"
    assert not hasattr(add, "__isabstractmethod__")

    assert add(1, 2) == 3
    real = sys.modules["late"].Base
    child: Any = type("Child", (real,), {})

    class Written(Base):
        pass

    assert Written.__mro__[1] is real
    assert isinstance(child(), Base)
    assert issubclass(child, Base)
    assert not isinstance(1, Base)
    assert (Base | None) == (real | None)
    assert pickle.loads(pickle.dumps(Base)) is real
    assert type(pickle.loads(pickle.dumps(Base()))) is real
    assert loads() == ["late"]


@pytest.mark.parametrize("name", ["late.part", "late.other"])
def test_a_parent_is_loaded_before_what_is_in_it(package: Path, name: str) -> None:
    late = import_late()
    module = importlib.import_module(name)

    assert module.VALUE == 1
    assert loads() == ["late", name]
    assert getattr(late, name.removeprefix("late.")) is module


def test_a_listed_module_waits_in_a_parent_that_waits(package: Path) -> None:
    with lazy_imports.import_lazily():
        from late import part
    assert loads() == []
    assert part.VALUE == 1
    assert loads() == ["late", "late.part"]


def test_threads_load_a_module_once(package: Path) -> None:
    late = import_late()
    (package / "__init__.py").write_text(f"import time\ntime.sleep(0.2)\n{SOURCE}", encoding="utf-8")
    barrier, seen = threading.Barrier(8), []

    def use() -> None:
        barrier.wait(60)
        seen.append(late.VALUE)

    threads = [threading.Thread(target=use) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert seen == [1] * 8
    assert loads() == ["late"]


@pytest.mark.parametrize("error", ["AttributeError", "ImportError", "ValueError"])
def test_a_failure_is_no_missing_attribute_and_is_tried_again(package: Path, error: str) -> None:
    late = import_late()
    (package / "__init__.py").write_text(f"raise {error}('broken')", encoding="utf-8")
    for _ in range(2):
        with pytest.raises(ValueError if error == "ValueError" else ImportError, match="broken"):
            hasattr(late, "VALUE")

    (package / "__init__.py").write_text(SOURCE + "# fixed", encoding="utf-8")
    importlib.invalidate_caches()
    assert late.VALUE == 1
    assert late is sys.modules["late"]


def test_a_module_that_replaces_itself_is_followed(package: Path) -> None:
    late = import_late()
    (package / "__init__.py").write_text(
        "import sys, types\nsys.modules[__name__] = types.SimpleNamespace(VALUE=2)", encoding="utf-8"
    )
    assert late.VALUE == 2
    assert sys.modules["late"] is not late


def test_only_the_thread_that_loads_ludwig_imports_lazily(package: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lazy_imports, "_HIDDEN", ("late.other",))
    found: list[Any] = []

    def use() -> None:
        found.append(importlib.import_module("late.other"))

    with lazy_imports.import_lazily():
        thread = threading.Thread(target=use)
        thread.start()
        thread.join(60)
        sys.modules.pop("late.other")
        with pytest.raises(ModuleNotFoundError, match=r"late\.other"):
            importlib.import_module("late.other")
    assert found[0].VALUE == 1
    assert loads() == ["late", "late.other"]
    assert importlib.import_module("late.other").VALUE == 1


def test_a_package_that_is_not_installed_is_missing_as_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(lazy_imports._LAZY, "not_installed", {"Name": object()})
    with lazy_imports.import_lazily(), pytest.raises(ModuleNotFoundError, match="not_installed"):
        importlib.import_module("not_installed")


@pytest.mark.slow
def test_loading_ludwig_leaves_the_process_as_it_was_and_the_rest_for_later() -> None:
    program = """
import gc, os, sys, threading, yaml
before = dict(os.environ), yaml.safe_load, yaml.SafeLoader, gc.isenabled()
from pneumo.pipeline.ludwig import lazy_imports, runtime
runtime.load_ludwig()
assert before == (dict(os.environ), yaml.safe_load, yaml.SafeLoader, gc.isenabled())
from huggingface_hub import constants
assert not constants.HF_HUB_OFFLINE
for name in ("ray", "torch._dynamo", "transformers", "sklearn", "scipy.signal", "torchmetrics.utilities.plot"):
    assert lazy_imports.is_waiting(name), name
assert not {"sympy", "matplotlib", "ray._private", "bitsandbytes", "dask"} & set(sys.modules)
import scipy.signal, scipy.signal.windows
assert scipy.signal.hamming(5).tolist() == scipy.signal.windows.hamming(5).tolist()
for module, names in lazy_imports._LAZY.items():
    for name, value in names.items():
        assert not isinstance(value, lazy_imports._LazyName) or value._load() is not value, (module, name)
import transformers, torch._dynamo
assert "ludwig.decoders.llm_decoders" not in lazy_imports._waiting
from ludwig.decoders.registry import get_decoder_registry
torch.compile(lambda x: x + 1, backend="eager")(torch.zeros(1))
torch.optim.Adam([torch.nn.Parameter(torch.zeros(1))]).step()
print("done")
"""
    environment = {name: value for name, value in os.environ.items() if name != "HF_HUB_OFFLINE"}
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=600, env=environment, check=False
    )
    assert done.stdout.strip().endswith("done"), done.stderr[-2000:]


def test_nothing_of_the_process_is_changed_after_an_error() -> None:
    before = yaml.safe_load, gc.isenabled()
    from pneumo.pipeline.ludwig import runtime

    with pytest.raises(RuntimeError), runtime._speed_up_imports():
        raise RuntimeError
    assert before == (yaml.safe_load, gc.isenabled())
    assert lazy_imports._FINDER.thread is None
