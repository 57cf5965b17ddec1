"""The hook that registers our components wherever Ludwig is imported, with a small module in Ludwig's place."""

import importlib
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

from pneumo import _ludwig_hook
from pneumo.pipeline.ludwig import components, runtime
from pneumo.serving.contracts.errors import MachineError
from tests.support.paths import ROOT

LUDWIG = "stand_in_for_ludwig"
COMPONENTS = ("good_component", "broken_component", "late_component")


@pytest.fixture
def hooked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Write a folder of modules: one that the hook waits for, and three components, one of them broken."""
    (tmp_path / f"{LUDWIG}.py").write_text("value = 1\n")
    for name in COMPONENTS:
        (tmp_path / f"{name}.py").write_text("raise RuntimeError('no such\\nlayer')" if "broken" in name else "")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(sys, "meta_path", list(sys.meta_path))
    monkeypatch.setattr(_ludwig_hook, "TRIGGER", LUDWIG)
    monkeypatch.setattr(components, "MODULES", COMPONENTS)
    yield tmp_path
    for name in (LUDWIG, *COMPONENTS):
        sys.modules.pop(name, None)


def import_ludwig() -> ModuleType:
    return importlib.import_module(LUDWIG)


def messages(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.name == "pneumo"]


def test_a_broken_component_is_one_line_of_the_log_and_the_others_are_registered(
    hooked: Path, caplog: pytest.LogCaptureFixture
) -> None:
    _ludwig_hook.autoload()
    assert not set(COMPONENTS) & set(sys.modules)

    module = import_ludwig()

    assert module.value == 1
    assert set(COMPONENTS) & set(sys.modules) == {"good_component", "late_component"}
    assert messages(caplog) == [
        "component broken_component was not registered with Ludwig: RuntimeError: no such layer"
    ]
    assert not any(isinstance(finder, _ludwig_hook._TriggerFinder) for finder in sys.meta_path)
    assert type(module.__loader__).__name__ == "SourceFileLoader"


def test_without_the_list_of_components_ludwig_is_imported_all_the_same(
    hooked: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    _ludwig_hook.autoload()
    monkeypatch.setattr(components, "register", None)

    assert import_ludwig().value == 1
    (message,) = messages(caplog)
    assert message.startswith("no component was registered with Ludwig: TypeError")


def test_a_finder_that_fails_leaves_the_import_to_the_others(
    hooked: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    _ludwig_hook.autoload()
    monkeypatch.setattr(_ludwig_hook, "_RegisteringLoader", None)

    assert import_ludwig().value == 1
    (message,) = messages(caplog)
    assert f"failed at {LUDWIG}" in message


def test_a_ludwig_that_fails_is_waited_for_again(hooked: Path) -> None:
    source = hooked / f"{LUDWIG}.py"
    source.write_text("raise ImportError('half installed')")
    _ludwig_hook.autoload()
    with pytest.raises(ImportError, match="half installed"):
        import_ludwig()

    source.write_text("value = 'installed now'")
    importlib.invalidate_caches()

    assert import_ludwig().value == "installed now"
    assert "good_component" in sys.modules


def test_the_hook_is_added_once_and_not_after_ludwig(hooked: Path) -> None:
    _ludwig_hook.autoload()
    _ludwig_hook.autoload()
    assert [type(finder) for finder in sys.meta_path].count(_ludwig_hook._TriggerFinder) == 1

    import_ludwig()
    _ludwig_hook.autoload()
    assert not any(isinstance(finder, _ludwig_hook._TriggerFinder) for finder in sys.meta_path)


def test_an_import_system_without_finders_is_no_error(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(_ludwig_hook, "TRIGGER", "not_imported_yet")
    monkeypatch.setattr(sys, "meta_path", None)
    _ludwig_hook.autoload()

    monkeypatch.undo()
    assert "the hook for Ludwig was not added" in messages(caplog)[0]


def test_loading_ludwig_for_pneumo_still_refuses_a_broken_component(
    monkeypatch: pytest.MonkeyPatch, hooked: Path
) -> None:
    monkeypatch.setitem(sys.modules, "ludwig", ModuleType("ludwig"))
    monkeypatch.setitem(sys.modules, "ludwig.api", ModuleType("ludwig.api"))
    monkeypatch.setattr(sys.modules["ludwig"], "api", sys.modules["ludwig.api"], raising=False)

    with pytest.raises(
        MachineError, match=r"^Ludwig .* does not take broken_component: no such; run `pip install ludwig=="
    ):
        runtime.load_ludwig()


def test_every_module_that_registers_something_is_listed() -> None:
    folder = ROOT / "pipeline" / "ludwig"
    registering = {path for path in folder.rglob("*.py") if "\n@register_" in path.read_text(encoding="utf-8")}

    listed = {ROOT / f"{name.removeprefix('pneumo.').replace('.', '/')}.py" for name in components.MODULES}
    assert registering <= listed
    assert all(path.is_file() for path in listed)


def test_importing_torch_without_ludwig_loads_nothing_of_ours() -> None:
    program = (
        "import sys\nsys.modules['ludwig'] = None\nimport torch\n"
        "print(*(name for name in sys.modules if name.startswith('pneumo')))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=300, check=True)

    assert set(done.stdout.split()) == {"pneumo", "pneumo._ludwig_hook"}
    assert done.stderr == ""
