"""Register pneumo's components with Ludwig in any process, so that `ludwig train -c FILE` takes every config here.

Ludwig has no plug-in mechanism, but every process that runs it imports torch, and torch calls the entry points of the
group `torch.backends` when it is imported. pneumo's adds an import hook that registers the components once Ludwig's
image encoders are imported. Until then nothing else of pneumo is imported. No failure here reaches the import of torch
or Ludwig: each is one line of the log. `TORCH_DEVICE_BACKEND_AUTOLOAD=0` switches the hook off.
"""

import importlib.abc
import importlib.util
import sys
from collections.abc import Sequence
from importlib.machinery import ModuleSpec
from types import ModuleType

TRIGGER = "ludwig.encoders.image.base"
"""Base of pneumo's components. `ludwig.api` would not do: it is half imported itself when it imports torch."""


def autoload() -> None:
    """Add the import hook; torch calls this when it is imported."""
    try:
        if TRIGGER not in sys.modules and not any(isinstance(finder, _TriggerFinder) for finder in sys.meta_path):
            sys.meta_path.insert(0, _TriggerFinder())
    except Exception as error:
        _log("the hook for Ludwig was not added", error)


class _TriggerFinder(importlib.abc.MetaPathFinder):
    """Finds `TRIGGER` once, with a loader that registers pneumo's components after it."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname != TRIGGER:
            return None
        try:
            if self in sys.meta_path:  # another thread may have removed it
                sys.meta_path.remove(self)
            spec = importlib.util.find_spec(fullname)
            if spec is not None and spec.loader is not None:
                spec.loader = _RegisteringLoader(spec.loader)
        except Exception as error:
            _log(f"the hook for Ludwig failed at {fullname}", error)
            return None  # the next finders find it
        return spec


class _RegisteringLoader(importlib.abc.Loader):
    """Loads a module with its own loader, then registers pneumo's components."""

    def __init__(self, inner: importlib.abc.Loader) -> None:
        self.inner = inner

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        return self.inner.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        module.__loader__ = self.inner  # tools that read a module's source ask its loader
        if module.__spec__ is not None:
            module.__spec__.loader = self.inner
        try:
            self.inner.exec_module(module)
        except BaseException:
            sys.meta_path.insert(0, _TriggerFinder())  # for the next import
            raise
        _register_components()


def _register_components() -> None:
    """Register each component; one that fails is logged, and the others are registered."""
    try:
        from pneumo.pipeline.ludwig import components

        failures = components.register()
    except Exception as error:
        _log("no component was registered with Ludwig", error)
        return
    for name, failure in failures.items():
        _log(f"component {name} was not registered with Ludwig", failure)


def _log(message: str, error: Exception) -> None:
    import logging

    reason = " ".join(str(error).split())[:300]
    logging.getLogger("pneumo").error("%s: %s: %s", message, type(error).__name__, reason)
