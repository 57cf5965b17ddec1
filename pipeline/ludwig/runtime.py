"""Load Ludwig late and fast.

Importing Ludwig takes over 20 s on two cores. Nothing here imports it before `load_ludwig` is called, and that leaves
what an image classifier seldom needs for later (`lazy_imports`).
"""

import contextlib
import gc
import importlib.util
import logging
import os
import sys
import threading
import warnings
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

from pneumo.pipeline.ludwig import lazy_imports
from pneumo.pipeline.runs.reporter import SILENT, Reporter
from pneumo.serving.contracts.errors import MachineError
from pneumo.serving.contracts.install_hints import install_hint
from pneumo.serving.contracts.process_state import set_environment, silence_loggers

_TURN = threading.RLock()
_LOADING = threading.RLock()


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
    """Replace an attribute of a module or object inside the context, if there is one; see `compat`."""
    if not hasattr(owner, name):
        yield
        return
    before = getattr(owner, name)
    setattr(owner, name, value)
    try:
        yield
    finally:
        setattr(owner, name, before)


@contextlib.contextmanager
def _speed_up_imports() -> Iterator[None]:
    """Speed up imports of this thread; other threads import as before."""
    import yaml

    read, thread = yaml.safe_load, threading.get_ident()

    def read_yaml(stream: Any) -> Any:  # Ludwig reads 700 KB at import
        loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
        return yaml.load(stream, loader) if threading.get_ident() == thread else read(stream)  # noqa: S506

    is_collecting = gc.isenabled()
    gc.disable()  # the import creates tens of thousands of objects that all stay
    try:
        with lazy_imports.import_lazily(), replace_attribute(yaml, "safe_load", read_yaml):
            yield
    finally:
        if is_collecting:
            gc.enable()


@contextlib.contextmanager
def _stay_offline() -> Iterator[None]:
    """Keep libraries from asking Hugging Face's hub, unless `HF_HUB_OFFLINE` is set: pneumo trains on local files."""
    with contextlib.ExitStack() as stack:
        if "HF_HUB_OFFLINE" not in os.environ and importlib.util.find_spec("huggingface_hub"):
            import huggingface_hub.constants

            stack.enter_context(set_environment({"HF_HUB_OFFLINE": "1"}))
            stack.enter_context(replace_attribute(huggingface_hub.constants, "HF_HUB_OFFLINE", True))
        yield


def load_ludwig(reporter: Reporter = SILENT) -> ModuleType:
    """Import `ludwig.api` and register pneumo's components.

    Raises:
        MachineError: Ludwig is not installed, or its version does not fit.
    """
    with _LOADING:
        if "ludwig.api" not in sys.modules:
            if importlib.util.find_spec("ludwig") is None:
                raise MachineError(f"Ludwig is not installed; {install_hint('train')}")
            with (
                reporter.waiting("loading Ludwig"),
                _stay_offline(),
                _speed_up_imports(),
                # importing Ludwig makes all loggers write to standard output
                replace_attribute(logging.root, "handlers", logging.root.handlers[:]),
                silence_loggers("", level=logging.root.level),
            ):
                import ludwig.api  # noqa: F401

        from pneumo.pipeline.ludwig import compat

        compat.check_ludwig(reporter.warning)
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
    """Append what Ludwig, torch and other libraries log, warn and print to a file, and to nothing else.

    That holds for the whole process, so threads take turns.
    """
    with (
        _TURN,
        _stay_offline(),
        path.open("a", encoding="utf-8") as file,
        replace_attribute(warnings, "showwarning", _log_warning),
    ):
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
