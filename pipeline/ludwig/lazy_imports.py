"""Import packages at their first use while Ludwig is loaded: an image classifier never needs most of what it imports.

A module of `_LAZY` stands in `sys.modules` unloaded until somebody asks for an attribute. `from module import name`
would do so at once: the names in the table, which Ludwig only calls, subclasses or asks for attributes, wait as well.
Python's own import locks hold: each module is loaded once, by one thread, and one that fails is tried again.
"""

import contextlib
import functools
import importlib
import importlib.abc
import importlib.machinery
import importlib.metadata
import pkgutil
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from types import ModuleType
from typing import Any

_HIDDEN = ("bitsandbytes", "dask")
"""Extras that Ludwig does without if they are absent: for language models, and for tables larger than memory."""


class _LazyName:
    """A class or function that is imported when it is used."""

    def __init__(self, module: str, name: str) -> None:
        self.__module__, self.__name__, self.__qualname__ = module, name, name
        self._load = functools.cache(lambda: getattr(_load(module), name))

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self._load()(*args, **kwargs)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):  # `typing` and `abc` ask anything that is annotated or assigned in a class
            raise AttributeError(name)
        return getattr(self._load(), name)

    def __mro_entries__(self, bases: tuple[object, ...]) -> tuple[Any]:
        return (self._load(),)

    def __instancecheck__(self, instance: object) -> bool:
        return isinstance(instance, self._load())

    def __subclasscheck__(self, subclass: type) -> bool:
        return issubclass(subclass, self._load())

    def __or__(self, other: Any) -> Any:
        return self._load() | other

    def __reduce__(self) -> tuple[Any, ...]:
        return pkgutil.resolve_name, (f"{self.__module__}:{self.__name__}",)


def _break_graph(msg: str = "") -> None:
    """Do nothing, as torch's `graph_break` does outside a compilation, which loads the real one first."""


def _disable_dynamo(function: Callable[..., Any], *options: Any, **named: Any) -> Callable[..., Any]:
    """Keep torch's compiler from a function, once it is loaded; an optimizer asks for this when it is made."""

    @functools.wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        if is_waiting("torch._dynamo"):
            return function(*args, **kwargs)
        disable = importlib.import_module("torch._dynamo").disable
        return disable(function, *options, **named)(*args, **kwargs)

    return call


_NAMES = {
    "ludwig.decoders.llm_decoders": "",  # registers decoders of language models: see `_FOLLOWERS`
    "ray": "",
    "ray.train": "",
    "scipy.signal": "",
    "sklearn": "",
    "sklearn.metrics": "confusion_matrix",
    "sklearn.model_selection": "KFold train_test_split",
    "torch._dynamo": "",
    "torch._dynamo.utils": "is_compile_supported",
    "torchaudio": "",
    "torchmetrics.utilities.plot": "_AX_TYPE _CMAP_TYPE _PLOT_OUT_TYPE plot_confusion_matrix plot_curve "
    "plot_single_or_multi_val",
    "transformers": "AutoConfig AutoModel AutoModelForCausalLM AutoTokenizer BitsAndBytesConfig CLIPModel "
    "CLIPProcessor GenerationConfig LogitsProcessor LogitsProcessorList PreTrainedModel PreTrainedTokenizer "
    "PreTrainedTokenizerBase PretrainedConfig TextStreamer",
    "transformers.optimization": "Adafactor",
    "transformers.tokenization_utils": "PreTrainedTokenizer",
}
_LAZY: dict[str, dict[str, object]] = {
    module: {name: _LazyName(module, name) for name in names.split()} for module, names in _NAMES.items()
}
_LAZY["scipy.signal"]["hamming"] = _LazyName("scipy.signal.windows", "hamming")  # torchmetrics adds it if it is absent
_LAZY["torch._dynamo"].update(graph_break=_break_graph, disable=_disable_dynamo)
_FOLLOWERS = {"transformers": "ludwig.decoders.llm_decoders"}
"""Modules that register themselves, and are loaded with the package that whoever needs them uses first."""

_modules: dict[str, "_LazyModule"] = {}
_waiting: set[str] = set()
_lock = threading.Lock()


def is_waiting(name: str) -> bool:
    """Tell whether a module waits in `sys.modules` for its first use."""
    return name in _waiting


class _LazyModule(ModuleType):
    """A module that is loaded when somebody asks for an attribute that it does not have yet."""

    def __getattr__(self, name: str) -> Any:
        own = self.__name__
        if name in ("__path__", "__file__", "__cached__") or own not in _modules:
            raise AttributeError(f"module {own!r} has no attribute {name!r}", name=name, obj=self)
        if own in _waiting and f"{own}.{name}" in _LAZY:
            return importlib.import_module(f"{own}.{name}")
        if own == "transformers" and name == "__version__" and own in _waiting:  # Ludwig compares it
            return importlib.metadata.version(own)
        module = _load(own)
        if module is self:  # `__getattr__` of its own, if any, has been asked, unless it was loaded just now
            return object.__getattribute__(self, name)
        return getattr(module, name)

    def __dir__(self) -> list[str]:
        return dir(_load(self.__name__))  # which makes it a plain module


def _load(name: str) -> ModuleType:
    """Load a module, after its parents, if it waits; wait for another thread that does.

    Raises:
        ImportError: The module, or one that it imports, cannot be loaded.
    """
    parent = name.rpartition(".")[0]
    if parent in _waiting:
        _load(parent)
    with _lock:
        if name in _waiting:
            _waiting.discard(name)
            sys.modules.pop(name, None)
    try:
        return importlib.import_module(name)
    except AttributeError as error:  # `hasattr` would take it for an answer
        raise ImportError(f"{name} cannot be imported: {error}", name=name) from error


class _Loader(importlib.abc.Loader):
    """Makes a module that waits, and loads it the second time."""

    def __init__(self, inner: Any) -> None:
        self.inner = inner

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> ModuleType:
        return _modules.get(spec.name) or _LazyModule(spec.name)

    def exec_module(self, module: ModuleType) -> None:
        name = module.__name__
        if isinstance(module, _LazyModule) and name not in _modules:
            module.__dict__.update(_LAZY[name])
            _modules[name] = module
            _waiting.add(name)
            return
        module.__loader__ = self.inner
        if module.__spec__ is not None:
            module.__spec__.loader = self.inner
        self.inner.exec_module(module)
        if sys.modules.get(name) is module:
            module.__class__ = ModuleType
        if (follower := _FOLLOWERS.get(name)) in _waiting:
            _load(follower)


class _Finder(importlib.abc.MetaPathFinder):
    """Finds modules of `_LAZY` for the thread that loads Ludwig, and later for whoever uses one that waits."""

    thread: int | None = None

    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        is_loading = threading.get_ident() == self.thread
        if is_loading and fullname in _HIDDEN:
            raise ModuleNotFoundError(f"No module named {fullname!r} while Ludwig is loaded", name=fullname)
        parent = fullname.rpartition(".")[0]
        is_new = is_loading and fullname in _LAZY and (parent not in _modules or parent in _waiting)
        if fullname not in _modules and not is_new:
            if parent in _waiting:
                _load(parent)
            return None
        spec = importlib.machinery.PathFinder.find_spec(fullname, path)
        if spec is None and is_new and parent in _waiting:  # a finder of the package's own may know it, later
            return importlib.machinery.ModuleSpec(fullname, _Loader(None))
        if spec is not None:
            spec.loader = _Loader(spec.loader)
        return spec


_FINDER = _Finder()


@contextlib.contextmanager
def import_lazily() -> Iterator[None]:
    """Let the modules of the table wait for their first use if this thread imports them inside the context."""
    if _FINDER not in sys.meta_path:
        sys.meta_path.insert(0, _FINDER)
    _FINDER.thread = threading.get_ident()
    try:
        yield
    finally:
        _FINDER.thread = None
