"""Makes Ludwig know pneumo's components in any process, so that `ludwig train -c FILE` takes every config here.

Ludwig has no plug-in mechanism, but every process that runs it imports torch, and torch calls the entry points of the
group `torch.backends` when it is imported. Ours leaves a hook that runs once Ludwig's image encoders are there.
Switched off with `TORCH_DEVICE_BACKEND_AUTOLOAD=0`.
"""

import importlib
import importlib.abc
import importlib.machinery
import importlib.util
import sys
from collections.abc import Sequence
from types import ModuleType

TRIGGER = "ludwig.encoders.image.base"
"""What our components build on. `ludwig.api` would not do: it is half imported itself when it imports torch."""


class _AfterImport(importlib.abc.MetaPathFinder):
    """Finds `TRIGGER` once, and has our components imported right after it."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        if fullname != TRIGGER:
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(fullname)
        if spec is not None and spec.loader is not None:
            spec.loader = _RegisteringLoader(spec.loader)
        return spec


class _RegisteringLoader(importlib.abc.Loader):
    def __init__(self, inner: importlib.abc.Loader) -> None:
        self.inner = inner

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> ModuleType | None:
        return self.inner.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        self.inner.exec_module(module)
        importlib.import_module("pneumo.pipeline.ludwig.components")


def autoload() -> None:
    """Called by torch at its import: wait for Ludwig."""
    if TRIGGER not in sys.modules and not any(isinstance(finder, _AfterImport) for finder in sys.meta_path):
        sys.meta_path.insert(0, _AfterImport())
