"""One drift check of the newest images, for a process of its own: `python -m serving.drift.job BUNDLE`.

It prints the check as JSON. Settings come from the environment, since an address of a database or of a webhook in the
arguments would be seen by everybody on the machine.
"""

import contextlib
import os
import signal
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from serving.errors import InputError, PneumoError

if TYPE_CHECKING:
    from serving.bundle import Bundle
    from serving.drift.verdict import DriftCheck
    from serving.log.store import LogStore
    from serving.settings import Settings

LIMIT_S = 900.0
"""Seconds that a check may take: 13 of one core, but others go first."""
UNTOLD = 4
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

    from serving.log.store import why

    try:
        return _main(folder)
    except PneumoError as error:
        said, code = str(error), error.exit_code
    except SQLAlchemyError as error:
        said, code = f"the log's database: {why(error)}", 3
    except Exception as error:  # its message can hold values of images
        said, code = f"{type(error).__name__} while the check was made", 1
    print(f"pneumo: {' '.join(said.split())}", file=sys.stderr)
    return code


def _main(folder: Path) -> int:
    from serving.bundle import Bundle
    from serving.drift.due import last_verdict
    from serving.drift.webhook import WebhookError, is_news, message, post
    from serving.log.store import LogStore
    from serving.settings import Settings

    settings = Settings.from_environment()
    if settings.log_url is None:
        raise InputError("PNEUMO_LOG_URL is not set; it names the prediction log")
    bundle, store = Bundle.open(folder), LogStore(settings.log_url)
    store.prepare()
    before = last_verdict(store, bundle.info.name)
    made = _check(store, bundle, settings)
    print(made.model_dump_json())
    again = os.environ.get(_UNTOLD_BEFORE) == "1" and made.verdict.value != "too_few"
    if settings.drift_webhook and (again or is_news(made.verdict, before)):
        dashboard = settings.public_url and f"{settings.public_url}/drift"
        try:
            post(settings.drift_webhook.get_secret_value(), message(made, before, dashboard))
        except WebhookError as error:
            print(f"pneumo: {error}", file=sys.stderr)
            return UNTOLD
    return 0


def _check(store: "LogStore", bundle: "Bundle", settings: "Settings") -> "DriftCheck":
    """Judge the newest images, and keep the result with Evidently's page."""
    import gzip
    import uuid

    import sqlalchemy as sa

    from serving.drift.drawing import draw
    from serving.drift.judging import judge
    from serving.drift.samples import reference_of, window_of
    from serving.drift.verdict import DriftCheck, Verdict
    from serving.drift.words import sentence
    from serving.log.tables import checks, predictions

    table, info = predictions.c, bundle.info
    query = (
        sa.select(predictions)
        .where(table.model == info.name, table.version == info.version, table.lane == "champion")
        .order_by(table.time.desc())
        .limit(settings.drift_window)
    )
    with store.engine.connect() as connection:
        rows = [dict(row) for row in connection.execute(query).mappings()]
    reference, window = reference_of(bundle), window_of(rows, info)
    verdict, columns = judge(reference, window, positive_class=info.positive_class)
    top = [column for column in columns if column.verdict is not Verdict.OK][:3]
    made = DriftCheck(
        time=datetime.now(UTC),
        model=info.name,
        version=info.version,
        window=f"the last {settings.drift_window} images",
        first=rows[-1]["time"] if rows else None,
        last=rows[0]["time"] if rows else None,
        images=len(rows),
        reference_images=len(reference),
        verdict=verdict,
        top=[column.name for column in top],
        summary=sentence(verdict, top, len(rows)),
        columns=columns,
    )
    page = gzip.compress(draw(made, reference, window)) if columns else None
    with store.engine.begin() as connection:
        row = {"id": uuid.uuid4().hex, "document": made.model_dump_json(), "report": page}
        known = {name: getattr(made, name) for name in ("time", "model", "version")}
        connection.execute(checks.insert().values(**known, **row, verdict=made.verdict.value))
    return made


def _be_modest() -> None:
    """Let requests go first; where memory ends, this process ends, not the service; and end in any case."""
    os.nice(_NICE)
    with contextlib.suppress(OSError):  # only Linux has it
        Path("/proc/self/oom_score_adj").write_text("1000", encoding="ascii")
    signal.alarm(int(LIMIT_S) + 5)  # where the service was killed there is nobody else to do it


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
