"""Process-wide state that Ludwig changes: seeds, progress bars, its log level."""

import contextlib
import logging
import random
from collections.abc import Iterator

from pneumo.serving.contracts.process_state import set_environment, silence_loggers


@contextlib.contextmanager
def restore_ludwig_state() -> Iterator[None]:
    """Restore at the end what Ludwig sets for the whole process; it is loaded already.

    Ludwig seeds Python, NumPy and torch: a notebook would draw the same numbers again after each training.
    """
    import numpy as np
    import torch
    from ludwig.globals import is_progressbar_disabled, set_disable_progressbar

    is_disabled: object = is_progressbar_disabled()  # type: ignore[no-untyped-call]
    drawn, drawn_by_numpy = random.getstate(), np.random.get_state()
    gpus = range(torch.cuda.device_count()) if torch.cuda.is_initialized() else ()  # type: ignore[no-untyped-call]
    quiet = silence_loggers("ludwig", level=logging.getLogger("ludwig").level)
    with quiet, set_environment({"PYTHONHASHSEED": "0"}, replace=True), torch.random.fork_rng(gpus):
        set_disable_progressbar(True)  # type: ignore[no-untyped-call]
        try:
            yield
        finally:
            set_disable_progressbar(is_disabled)  # type: ignore[no-untyped-call]
            random.setstate(drawn)
            np.random.set_state(drawn_by_numpy)
