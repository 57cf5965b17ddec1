"""One drift check of the newest images, for a process of its own: `python -m pneumo.serving.drift.job BUNDLE`.

It prints the check as JSON. Settings come from the environment, since an address of a database or of a webhook in the
arguments would be seen by everybody on the machine.
"""

import contextlib
import os
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from pneumo.serving.contracts.errors import InputError, PneumoError

if TYPE_CHECKING:
    from pneumo.serving.contracts.settings import Settings
    from pneumo.serving.drift.verdict import DriftCheck
    from pneumo.serving.model.bundle import Bundle
    from pneumo.serving.predictions.store import LogStore

LIMIT_S = 900.0
"""Seconds that a check may take: 13 of one core, but others go first."""
NOT_POSTED = 4
"""What the job exits with where the check is stored and its message did not arrive."""
_UNTOLD_BEFORE = "PNEUMO_DRIFT_UNTOLD"
_NICE = 10


def main(folder: Path) -> int:
    """Make, store and print a check, and tell people where the verdict is another.

    Returns:
        What to exit with.
    """
    _be_modest()
    from sqlalchemy.exc import SQLAlchemyError

    from pneumo.serving.predictions.store import describe_error

    try:
        return _main(folder)
    except PneumoError as error:
        said, code = str(error), error.exit_code
    except SQLAlchemyError as error:
        said, code = f"the log's database: {describe_error(error)}", 3
    except Exception as error:  # its message can hold values of images
        said, code = f"{type(error).__name__} while the check was made", 1
    print(f"pneumo: {' '.join(said.split())}", file=sys.stderr)
    return code


def _main(folder: Path) -> int:
    from pneumo.serving.contracts.settings import Settings
    from pneumo.serving.drift.stored_checks import find_last_verdict
    from pneumo.serving.drift.webhook import WebhookError, build_message, is_news, post_message
    from pneumo.serving.model.bundle import Bundle
    from pneumo.serving.predictions.store import LogStore

    settings = Settings.from_environment()
    if settings.log_url is None:
        raise InputError("PNEUMO_LOG_URL is not set; it names the prediction log")
    bundle, store = Bundle.open(folder), LogStore(settings.log_url)
    store.prepare()
    before = find_last_verdict(store, bundle.info.name)
    made = _check(store, bundle, settings)
    print(made.model_dump_json())
    again = os.environ.get(_UNTOLD_BEFORE) == "1" and made.verdict.value != "too_few"
    if settings.drift_webhook and (again or is_news(made.verdict, before)):
        dashboard = settings.public_url and f"{settings.public_url}/drift"
        try:
            post_message(settings.drift_webhook.get_secret_value(), build_message(made, before, dashboard))
        except WebhookError as error:
            print(f"pneumo: {error}", file=sys.stderr)
            return NOT_POSTED
    return 0


def _check(store: "LogStore", bundle: "Bundle", settings: "Settings") -> "DriftCheck":
    """Judge the newest images, and keep the result with Evidently's page."""
    from pneumo.serving.drift.check import check_drift
    from pneumo.serving.drift.stored_checks import store_result
    from pneumo.serving.predictions.windows import Window, read_window

    newest = Window(bundle.info.name, bundle.info.version, last=settings.drift_window)
    made = check_drift(bundle, read_window(store, newest), window=f"the last {settings.drift_window} images")
    store_result(store, made, without_page=True)
    return made.check


def _be_modest() -> None:
    """Let requests go first; where memory ends, this process ends, not the service; and end in any case."""
    os.nice(_NICE)
    with contextlib.suppress(OSError):  # only Linux has it
        Path("/proc/self/oom_score_adj").write_text("1000", encoding="ascii")
    signal.alarm(int(LIMIT_S) + 5)  # where the service was killed there is nobody else to do it


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
