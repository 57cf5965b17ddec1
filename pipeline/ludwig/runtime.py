"""Load Ludwig late and fast.

Importing Ludwig takes over 20 s on two cores. Nothing here imports it before `load_ludwig` is called, and that leaves
out what an image classifier never needs (docs/benchmarks.md).
"""

import contextlib
import gc
import importlib.util
import logging
import os
import sys
import time
import warnings
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

from pneumo.pipeline.runs.provenance import read_git_commit
from pneumo.pipeline.runs.reporter import SILENT, Reporter
from pneumo.serving.contracts.errors import MachineError
from pneumo.serving.contracts.install_hints import install_hint

_UNUSED = ("bitsandbytes",)
"""Packages that Ludwig imports if they are installed, and that only its language models use."""


@contextlib.contextmanager
def hide_packages(*names: str) -> Iterator[None]:
    """Make packages look absent, unless they are imported already."""
    hidden = [name for name in names if name not in sys.modules]
    sys.modules.update(dict.fromkeys(hidden))  # type: ignore[arg-type]  # None makes an import fail
    try:
        yield
    finally:
        for name in hidden:
            sys.modules.pop(name, None)


@contextlib.contextmanager
def replace_attribute(owner: object, name: str, value: object) -> Iterator[None]:
    """Replace an attribute of a module or object inside the context."""
    before = getattr(owner, name)
    setattr(owner, name, value)
    try:
        yield
    finally:
        setattr(owner, name, before)


@contextlib.contextmanager
def _speed_up_imports() -> Iterator[None]:
    import yaml

    is_collecting = gc.isenabled()
    gc.disable()  # the import creates tens of thousands of objects that all stay
    c_loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # Ludwig reads 2 s of YAML at import
    try:
        with replace_attribute(yaml, "SafeLoader", c_loader), hide_packages(*_UNUSED):
            yield
    finally:
        if is_collecting:
            gc.enable()


def load_ludwig(reporter: Reporter = SILENT) -> ModuleType:
    """Import `ludwig.api` and register pneumo's components.

    Raises:
        MachineError: Ludwig is not installed, or a component cannot be registered.
    """
    if "ludwig.api" not in sys.modules:
        if importlib.util.find_spec("ludwig") is None:
            raise MachineError(f"Ludwig is not installed; {install_hint('train')}")
        reporter.message("loading Ludwig (10 to 30 s) ...")
        started = time.perf_counter()
        os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
        os.environ.setdefault("HF_HUB_OFFLINE", "1")  # pneumo trains on local files; without this a hub is queried
        with _speed_up_imports():
            import ludwig.api
            import ludwig.experiment_utils
        # Ludwig's own prints git's error in a repository without a commit, such as after `pneumo init`
        ludwig.experiment_utils.get_commit_hash = lambda: read_git_commit(Path())  # type: ignore[attr-defined]
        reporter.message(f"Ludwig loaded in {time.perf_counter() - started:.0f} s")

    from pneumo.pipeline.ludwig import components

    for name, error in components.register().items():
        raise MachineError(f"{name} cannot be registered with Ludwig: {error}") from error
    return sys.modules["ludwig.api"]


@contextlib.contextmanager
def skip_schema_check() -> Iterator[None]:
    """Skip Ludwig's JSON-schema pass, for a config that `pneumo.pipeline.config` has checked against the same schema.

    Ludwig builds 8 MB of schema for it, which took 3 s on two cores. Its own checks of values stay.
    """
    import ludwig.schema.model_types.base as base

    with replace_attribute(base, "check_schema", lambda config: None):
        yield


@contextlib.contextmanager
def log_to_file(path: Path) -> Iterator[None]:
    """Append what Ludwig, torch and other libraries log, warn and print to a file, and to nothing else."""
    with path.open("a", encoding="utf-8") as file, replace_attribute(warnings, "showwarning", _log_warning):
        handler = logging.StreamHandler(file)
        handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
        root, *others = loggers = [logging.getLogger(name) for name in (None, "ludwig", "py.warnings")]
        before = [(logger, logger.handlers[:], logger.propagate, logger.level) for logger in loggers]
        root.handlers = [handler]
        for logger in others:
            logger.handlers, logger.propagate = [], True
        logging.getLogger("ludwig").setLevel(logging.INFO)  # loading a model leaves it at ERROR
        try:
            with contextlib.redirect_stdout(file):
                yield
        finally:
            for logger, handlers, propagate, level in before:
                logger.handlers, logger.propagate = handlers, propagate
                logger.setLevel(level)


def _log_warning(
    message: object, category: type[Warning], filename: str, lineno: int, *_: object, **__: object
) -> None:
    """Replace `warnings.showwarning`; `logging.captureWarnings` would drop what the service's log filter drops."""
    logging.getLogger("py.warnings").warning("%s:%d: %s: %s", filename, lineno, category.__name__, message)
