"""Ludwig, loaded late and as fast as it goes.

Importing Ludwig takes over 20 s on two cores. Nothing here imports it before `load` is called, and `load` leaves out
what an image classifier never needs (docs/benchmarks.md).
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
from typing import Any, TextIO

from pneumo.pipeline.runs.provenance import read_git_commit
from pneumo.pipeline.runs.reporter import SILENT, Reporter
from pneumo.serving.contracts.errors import MachineError
from pneumo.serving.contracts.install_hints import install_hint

_UNUSED = ("bitsandbytes",)
"""Packages that Ludwig imports where they are there and that only its language models use."""


@contextlib.contextmanager
def hide_packages(*names: str) -> Iterator[None]:
    """Let packages look absent, unless they were imported before."""
    hidden = [name for name in names if name not in sys.modules]
    sys.modules.update(dict.fromkeys(hidden))  # type: ignore[arg-type]  # None is how Python marks what is not to be found
    try:
        yield
    finally:
        for name in hidden:
            sys.modules.pop(name, None)


@contextlib.contextmanager
def _lean_imports() -> Iterator[None]:
    import yaml

    loader = yaml.SafeLoader
    collects = gc.isenabled()
    gc.disable()  # tens of thousands of objects that all stay: a collector only walks them
    with contextlib.suppress(AttributeError):
        yaml.SafeLoader = yaml.CSafeLoader  # type: ignore[misc,assignment]  # Ludwig reads 2 s of YAML at import
    try:
        with hide_packages(*_UNUSED):
            yield
    finally:
        yaml.SafeLoader = loader  # type: ignore[misc]
        if collects:
            gc.enable()


def is_loaded() -> bool:
    """Whether Ludwig is in this process already."""
    return "ludwig.api" in sys.modules


def load_ludwig(reporter: Reporter = SILENT) -> ModuleType:
    """Import Ludwig with pneumo's encoders registered.

    Args:
        reporter: Receives progress.

    Returns:
        The module `ludwig.api`.

    Raises:
        MachineError: Ludwig is not installed, or one of pneumo's components cannot be registered.
    """
    if not is_loaded():
        if importlib.util.find_spec("ludwig") is None:
            raise MachineError(f"Ludwig is not installed; {install_hint('train')}")
        reporter.message("loading Ludwig (10 to 30 s) ...")
        started = time.perf_counter()
        os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
        os.environ.setdefault("HF_HUB_OFFLINE", "1")  # pneumo trains on local files; without this a hub is asked
        with _lean_imports():
            import ludwig.api
            import ludwig.experiment_utils
        # Ludwig's own lets git complain on the terminal where a repository has no commit yet, as after `pneumo init`.
        ludwig.experiment_utils.get_commit_hash = lambda: read_git_commit(Path())  # type: ignore[attr-defined]
        reporter.message(f"Ludwig loaded in {time.perf_counter() - started:.0f} s")
    import ludwig.api

    from pneumo.pipeline.ludwig import components

    for name, error in components.register().items():
        raise MachineError(f"{name} cannot be registered with Ludwig: {error}") from error
    module: ModuleType = ludwig.api
    return module


@contextlib.contextmanager
def skip_schema_check() -> Iterator[None]:
    """Skip Ludwig's JSON-schema pass over a config that `pneumo.pipeline.config` has checked against the same schema.

    Ludwig builds 8 MB of schema for it, which took 3 s on two cores; its own checks of values stay.
    """
    import ludwig.schema.model_types.base

    base: Any = ludwig.schema.model_types.base
    before = base.check_schema
    base.check_schema = lambda config: None
    try:
        yield
    finally:
        base.check_schema = before


@contextlib.contextmanager
def log_to_file(path: Path) -> Iterator[None]:
    """Append what Ludwig, torch and their helpers log, warn and print on standard output to a file, nowhere else."""
    with path.open("a", encoding="utf-8") as file:
        handler = logging.StreamHandler(file)
        handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
        loggers = [logging.getLogger(), *(logging.getLogger(name) for name in ("ludwig", "py.warnings"))]
        before = [(logger, logger.handlers[:], logger.propagate, logger.level) for logger in loggers]
        for logger in loggers:
            logger.handlers, logger.propagate = [], True
        loggers[1].setLevel(logging.INFO)  # loading a model leaves it at ERROR
        loggers[0].handlers = [handler]
        shows, warnings.showwarning = warnings.showwarning, _log_warning
        try:
            with contextlib.redirect_stdout(file):
                yield
        finally:
            warnings.showwarning = shows
            for logger, handlers, propagates, level in before:
                logger.handlers, logger.propagate = handlers, propagates
                logger.setLevel(level)


def _log_warning(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    file: TextIO | None = None,
    line: str | None = None,
) -> None:
    """In the place of `warnings.showwarning`; `logging.captureWarnings` would leave out what the service's log does."""
    logging.getLogger("py.warnings").warning("%s:%d: %s: %s", filename, lineno, category.__name__, message)
