"""A process that uses the public API as a notebook would, and prints what of its shared state has changed.

`python -m tests.support.process_snapshot CONFIG DATA IMAGES FOLDER`
"""

import gc
import json
import locale
import logging
import os
import signal
import socket
import sys
import tempfile
import threading
import warnings
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import pandas as pd
import torch
import yaml
from PIL import Image, ImageFile

import pneumo

SILENCED = ("PIL", "pydicom", "pylibjpeg", "openjpeg", "libjpeg", "torch")
"""Libraries that stay silent once pneumo has read an image, since they quote its content; torch opens its own log."""
SET_AT_IMPORT = ("KMP_DUPLICATE_LIB_OK", "KMP_INIT_AT_FORK", "TORCHINDUCTOR_CACHE_DIR")
"""Variables that scikit-learn and torch set when they are imported."""


def take_snapshot(names: set[str]) -> dict[str, Any]:
    """Return the state that a process shares, by name; `names` are those of the loggers."""
    loggers = {name: logging.getLogger(name) for name in names if name.partition(".")[0] not in SILENCED}
    loggers["root"] = logging.getLogger()
    handlers = {number.name: str(signal.getsignal(number)) for number in signal.valid_signals() if number in _SIGNALS}
    filters = [str(each) for each in warnings.filters if each[2].__module__ == "builtins" and each[1] is each[3]]
    state: dict[str, Any] = {
        **{f"signal {name}": handler for name, handler in handlers.items()},
        **{f"environment {name}": value for name, value in os.environ.items() if name not in SET_AT_IMPORT},
        **{
            f"logger {name}": [each.level, each.propagate, each.disabled, str(each.handlers), str(each.filters)]
            for name, each in loggers.items()
        },
        **{f"matplotlib {name}": value for name, value in mpl.rcParams.items() if name != "backend"},
        "matplotlib backend": mpl.get_backend(auto_select=False),
        "logging.disable": logging.root.manager.disable,
        "warnings.filters": filters,
        "warnings": [str(warnings.showwarning), str(warnings.formatwarning)],
        "hooks": [str(sys.excepthook), str(threading.excepthook), str(sys.exit)],
        "streams": [str(sys.stdin), str(sys.stdout), str(sys.stderr)],
        "folders": [tempfile.tempdir, tempfile.gettempdir(), str(Path.cwd()), *sys.path],
        "hidden modules": [name for name, module in sys.modules.items() if module is None],
        "random numbers of NumPy": hash(str(np.random.get_state())),
        "random numbers of torch": hash(str(torch.get_rng_state().tolist())),
        "threads of torch": [torch.get_num_threads(), torch.get_num_interop_threads()],
        "torch": [
            *(torch.are_deterministic_algorithms_enabled(), torch.is_grad_enabled(), str(torch.get_default_dtype())),
            *(torch.backends.cudnn.benchmark, torch.backends.cudnn.deterministic),
            torch.get_float32_matmul_precision(),
        ],
        "interpreter": [gc.isenabled(), gc.get_threshold(), sys.getrecursionlimit(), sys.getswitchinterval()],
        "sockets": socket.getdefaulttimeout(),
        "pillow": [Image.MAX_IMAGE_PIXELS, ImageFile.LOAD_TRUNCATED_IMAGES],
        "numpy": np.geterr(),
        "pandas": pd.get_option("display.max_rows"),
        "yaml": str(yaml.SafeLoader),
        "locale": locale.setlocale(locale.LC_ALL),
    }
    return state


_SIGNALS = tuple(number for number in signal.valid_signals() if isinstance(number, signal.Signals))


def main(config: str, data: str, images: str, folder: str) -> None:
    """Train, evaluate, export, promote and predict, in the main thread and in another; print what differs."""
    signal.signal(signal.SIGUSR1, lambda *_: None)
    runs, models = Path(folder, "runs"), Path(folder, "models")
    loggers = set(logging.root.manager.loggerDict)
    before = take_snapshot(loggers)
    overrides = json.loads(os.environ["PNEUMO_TEST_OVERRIDES"])

    def train() -> None:
        run = pneumo.train(config, data, overrides=overrides, runs_dir=runs)
        pneumo.evaluate(run, data=data, split="test", out=Path(folder, "evaluations"))

    train()
    thread = threading.Thread(target=train)
    thread.start()
    thread.join()
    bundle = pneumo.export(runs_dir=runs)
    pneumo.export(runs_dir=runs, quantize="int8") if "int8" in config else None
    pneumo.promote(bundle, force="a test", models_dir=models, runs_dir=runs)
    assert pneumo.predict(images, models_dir=models)

    after = take_snapshot(loggers)
    changed = sorted(name for name in before.keys() | after.keys() if before.get(name) != after.get(name))
    print(json.dumps({name: [before.get(name), after.get(name)] for name in changed}, indent=1, default=str))


if __name__ == "__main__":
    main(*sys.argv[1:])
