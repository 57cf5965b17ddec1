"""Drift checks of the command line: of the prediction log or of files, and their reports."""

import os
import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import sqlalchemy as sa

from pneumo.serving.contracts.errors import InputError, MachineError, PneumoError
from pneumo.serving.contracts.files import write_text
from pneumo.serving.contracts.install_hints import missing_module
from pneumo.serving.contracts.quantities import format_count
from pneumo.serving.drift.check import DriftResult, check_drift
from pneumo.serving.drift.log_queries import count_by_site
from pneumo.serving.drift.verdict import Verdict
from pneumo.serving.inference.offline import find_images
from pneumo.serving.model.bundle import Bundle
from pneumo.serving.predictions.log_tables import predictions
from pneumo.serving.predictions.store import LogStore
from pneumo.serving.predictions.windows import MOST, Window, count_rows, read_window

LOG = Path("predictions.sqlite3")
"""Default log of `pneumo serve`."""
LAST = 500
"""Default images of a window."""
PAGE, DOCUMENT = "report.html", "report.json"

_SPAN = re.compile(r"([1-9][0-9]{0,4})([mhdw])")
_UNITS = {"m": timedelta(minutes=1), "h": timedelta(hours=1), "d": timedelta(days=1), "w": timedelta(weeks=1)}


class TooFewError(PneumoError):
    """The window has too few images: neither drift nor a mistake of the user."""

    exit_code = 4


def open_log(url: str | None) -> LogStore:
    """Open the prediction log at a URL; by default `PNEUMO_LOG_URL`, else the file that `pneumo serve` writes.

    Raises:
        InputError: There is none.
        MachineError: The database cannot be reached, or its driver is not installed.
    """
    url = url or os.environ.get("PNEUMO_LOG_URL")
    if not url:
        if not LOG.is_file():
            raise InputError(
                f"no prediction log: {LOG} is not in this folder; `pneumo serve` writes one unless it is run with "
                "--no-log, and --log or PNEUMO_LOG_URL names another"
            )
        url = f"sqlite:///{LOG}"
    store = LogStore(url)
    if store.engine.dialect.name == "sqlite" and not Path(store.engine.url.database or "").is_file():
        raise InputError(f"{store.shown}: no such file; `pneumo serve` writes a prediction log")
    with store.translate_errors():
        inspected = sa.inspect(store.engine)
        if not inspected.has_table(predictions.name):
            raise InputError(f"{store.shown}: holds no prediction log; `pneumo serve` writes one")
        if len(inspected.get_columns(predictions.name)) < len(predictions.columns):
            store.prepare()  # an older version wrote it
    return store


def parse_time(text: str, now: datetime | None = None) -> datetime:
    """Parse `24h`, `7d` or `2w` before now, or a date or time such as `2026-11-24T08:00` (UTC); raise `InputError`."""
    if span := _SPAN.fullmatch(text):
        return (now or datetime.now(UTC)) - int(span[1]) * _UNITS[span[2]]
    try:
        time = datetime.fromisoformat(text)
    except ValueError:
        raise InputError(
            f"--since {text!r}: must be a span such as 90m, 24h, 7d or 2w, or a date such as 2026-11-24"
        ) from None
    return time.astimezone(UTC) if time.tzinfo else time.replace(tzinfo=UTC)


def check_log(
    bundle: Bundle,
    store: LogStore,
    *,
    last: int | None = None,
    since: str | None = None,
    lane: str | None = "champion",
    site: str | None = None,
) -> DriftResult:
    """Check the images that a model answered: the newest `last`, by default `LAST`, or all since a time (`parse_time`).

    With `site` only its images count. Without, all sites of the window are checked too.

    Raises:
        InputError: The bundle has no reference, `since` cannot be read, or the log has no such site of this model.
        MachineError: The database cannot be reached.
    """
    last = last or (LAST if since is None else MOST)
    words = "the images" if last == MOST else f"the last {format_count(last, 'image')}"
    start = None if since is None else parse_time(since)
    if start is not None:
        words += f" since {start:%Y-%m-%d %H:%M} UTC"
    every = Window(bundle.info.name, bundle.info.version, lane, start, last)
    with store.translate_errors():
        rows = read_window(store, replace(every, site=site))
        names = [each.site for each in count_by_site(store, every)] if site and not rows else []
    if site and not rows:
        raise InputError(f"--site {site}: no image of it among {words}; sites there: {', '.join(names) or 'none'}")
    words += f" of site {site}" if site else ""
    return check_drift(bundle, rows, window=words)


def count_other_rows(store: LogStore, bundle: Bundle) -> int:
    """Count the log's images of other models, versions or slots; raise a `MachineError` if it cannot be reached."""
    with store.translate_errors():
        return count_rows(store, Window(lane=None)) - count_rows(store, Window(bundle.info.name, bundle.info.version))


def check_files(
    bundle: Bundle, paths: Sequence[Path], *, progress: Callable[[int], object] = lambda count: None
) -> tuple[DriftResult, dict[Path, str]]:
    """Check image files as the service sees them; return the check, and the reason for each file that cannot be read.

    Raises:
        InputError: A path does not exist, a folder has no images, or the bundle has no reference.
        MachineError: ONNX Runtime is not installed.
    """
    try:
        from pneumo.serving.drift.describe_files import describe_files
        from pneumo.serving.model.predictor import Predictor
    except ModuleNotFoundError as error:
        raise MachineError(missing_module(error)) from None
    rows, unreadable = describe_files(Predictor(bundle), find_images(paths), progress=progress)
    folders = [path.resolve().name for path in paths if path.is_dir()]
    words = f"images of {', '.join(folders)}" if folders else "image files"  # a file's name may be a patient's
    return check_drift(bundle, [row.values() for row in rows], window=words, served=False), unreadable


def write_drift_report(checked: DriftResult, folder: Path) -> list[Path]:
    """Write Evidently's page and the check as JSON; with too few images to draw, delete an older page.

    Returns the written files; raises a `MachineError` if Evidently is not installed.
    """
    folder.mkdir(parents=True, exist_ok=True)
    page, document = folder / PAGE, folder / DOCUMENT
    written = []
    if checked.check.verdict is Verdict.TOO_FEW:
        page.unlink(missing_ok=True)
    else:
        from pneumo.serving.drift.evidently_page import compose_page

        write_text(page, compose_page(checked.check, checked.reference, checked.window).decode())
        written.append(page)
    write_text(document, checked.check.model_dump_json(indent=2) + "\n")
    return [*written, document]
