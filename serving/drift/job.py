"""One drift check of the newest images in a process of its own: `python -m pneumo.serving.drift.job BUNDLE`.

It prints the check as JSON. Settings come from the environment, since everybody on the machine sees arguments, and the
addresses of database and webhook are secret.
"""

import contextlib
import os
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from pneumo.serving.contracts.errors import InputError, PneumoError
from pneumo.serving.contracts.quantities import format_count

if TYPE_CHECKING:
    from pneumo.serving.contracts.settings import Settings
    from pneumo.serving.drift.verdict import DriftCheck
    from pneumo.serving.model.bundle import Bundle
    from pneumo.serving.predictions.store import LogStore

LIMIT_S = 900.0
"""Maximum seconds of a check; it takes 13 s of one core, at low priority."""
NOT_POSTED = 4
"""Exit code if the check is stored and its message did not arrive."""
_NICE = 10


def main(folder: Path) -> int:
    """Make, store and print a check, and post it if the verdict changed.

    Returns:
        The exit code.
    """
    _lower_priority()
    from sqlalchemy.exc import SQLAlchemyError

    from pneumo.serving.predictions.store import describe_error

    try:
        return _main(folder)
    except PneumoError as error:
        message, code = str(error), error.exit_code
    except SQLAlchemyError as error:
        message, code = f"the log's database: {describe_error(error)}", 3
    except Exception as error:  # its message can hold values of images
        message, code = f"{type(error).__name__} during the check", 1
    print(f"pneumo: {' '.join(message.split())}", file=sys.stderr)
    return code


def _main(folder: Path) -> int:
    from pneumo.serving.contracts.settings import Settings
    from pneumo.serving.drift.stored_checks import find_last_verdict
    from pneumo.serving.drift.verdict import Verdict
    from pneumo.serving.drift.webhook import WebhookError, build_message, is_news, post_message
    from pneumo.serving.model.bundle import Bundle
    from pneumo.serving.predictions.store import LogStore

    settings = Settings.from_environment()
    if settings.log_url is None:
        raise InputError("PNEUMO_LOG_URL is not set; it names the prediction log")
    bundle, store = Bundle.open(folder), LogStore(settings.log_url)
    store.prepare()
    before = find_last_verdict(store, bundle.info.name)
    check = _check(store, bundle, settings)
    print(check.model_dump_json())
    retry = os.environ.get("PNEUMO_DRIFT_UNTOLD") == "1" and check.verdict is not Verdict.TOO_FEW
    if settings.drift_webhook and (retry or is_news(check.verdict, before)):
        dashboard = settings.public_url and f"{settings.public_url}/drift"
        try:
            post_message(settings.drift_webhook.get_secret_value(), build_message(check, before, dashboard))
        except WebhookError as error:
            print(f"pneumo: {error}", file=sys.stderr)
            return NOT_POSTED
    return 0


def _check(store: "LogStore", bundle: "Bundle", settings: "Settings") -> "DriftCheck":
    """Check the newest images, and store the result with Evidently's page."""
    from pneumo.serving.drift.check import check_drift
    from pneumo.serving.drift.stored_checks import store_result
    from pneumo.serving.predictions.windows import Window, read_window

    newest = Window(bundle.info.name, bundle.info.version, last=settings.drift_window)
    window = f"the last {format_count(settings.drift_window, 'image')}"
    checked = check_drift(bundle, read_window(store, newest), window=window)
    store_result(store, checked)
    return checked.check


def _lower_priority() -> None:
    """Let requests go first, be killed first if memory runs out, and end soon after `LIMIT_S`."""
    os.nice(_NICE)
    with contextlib.suppress(OSError):  # only Linux has it
        Path("/proc/self/oom_score_adj").write_text("1000", encoding="ascii")
    signal.alarm(int(LIMIT_S) + 5)  # if the service was killed, nobody else ends it


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
