"""Drift checks as a user asks for them: of the prediction log, or of files; and what is written of them."""

import os
import re
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

import sqlalchemy as sa
from sqlalchemy.exc import SQLAlchemyError

from pneumo.serving.contracts.errors import InputError, MachineError, PneumoError
from pneumo.serving.contracts.files import write_text
from pneumo.serving.contracts.install_hints import missing_module
from pneumo.serving.drift.check import DriftResult, check_drift
from pneumo.serving.drift.verdict import Verdict
from pneumo.serving.inference.offline import find_images
from pneumo.serving.model.bundle import Bundle
from pneumo.serving.predictions.log_tables import predictions
from pneumo.serving.predictions.store import LogStore, describe_error
from pneumo.serving.predictions.windows import MOST, Window, count_rows, read_window

LOG = Path("predictions.sqlite3")
"""The log that `pneumo serve` writes unless told otherwise."""
LAST = 500
"""Images of a window where nothing else is asked for."""
PAGE, DOCUMENT = "report.html", "report.json"

_SPAN = re.compile(r"([1-9][0-9]{0,4})([mhdw])")
_UNITS = {"m": timedelta(minutes=1), "h": timedelta(hours=1), "d": timedelta(days=1), "w": timedelta(weeks=1)}


class TooFewError(PneumoError):
    """Too few images to say anything: neither drift nor a mistake of the user."""

    exit_code = 4


def open_log(url: str | None) -> LogStore:
    """The prediction log at an address; by default `PNEUMO_LOG_URL`, else the file that `pneumo serve` writes.

    Raises:
        InputError: There is none.
        MachineError: The database cannot be reached, or its driver is not installed.
    """
    url = url or os.environ.get("PNEUMO_LOG_URL")
    if not url:
        if not LOG.is_file():
            raise InputError(
                f"no prediction log: {LOG} is not here; `pneumo serve` writes one unless it is run with --no-log, and "
                "--log or PNEUMO_LOG_URL names another"
            )
        url = f"sqlite:///{LOG}"
    store = LogStore(url)
    database = store.engine.url.database
    if store.engine.dialect.name == "sqlite" and not Path(database or "").is_file():
        raise InputError(f"{store.shown}: no such file; `pneumo serve` writes a prediction log")
    try:
        is_log = sa.inspect(store.engine).has_table(predictions.name)
    except SQLAlchemyError as error:
        raise MachineError(f"{store.shown}: {describe_error(error)}") from None
    if not is_log:
        raise InputError(f"{store.shown}: holds no prediction log; `pneumo serve` writes one")
    return store


def parse_time(text: str, now: datetime | None = None) -> datetime:
    """Read `24h`, `90m`, `7d` or `2w` before now, or a date or time such as `2026-11-24T08:00`, UTC unless it says.

    Raises:
        InputError: It is neither.
    """
    now = now or datetime.now(UTC)
    if found := _SPAN.fullmatch(text):
        return now - int(found[1]) * _UNITS[found[2]]
    try:
        given = datetime.fromisoformat(text)
    except ValueError:
        raise InputError(
            f"--since {text!r}: must be a span such as 90m, 24h, 7d or 2w, or a date such as 2026-11-24"
        ) from None
    return given.astimezone(UTC) if given.tzinfo else given.replace(tzinfo=UTC)


def check_log(
    bundle: Bundle, store: LogStore, *, last: int | None = None, since: str | None = None, lane: str | None = "champion"
) -> DriftResult:
    """Check what a model answered.

    Args:
        bundle: The model.
        store: The log.
        last: The newest images; `LAST` where neither this nor `since` is given.
        since: How far back, see `parse_time`.
        lane: What the model was there for; None takes every lane.

    Raises:
        InputError: The bundle has no reference, or `since` cannot be read.
        MachineError: The database cannot be reached.
    """
    info = bundle.info
    last = last or (LAST if since is None else MOST)
    window = Window(info.name, info.version, lane, None if since is None else parse_time(since), last)
    words = "the images" if last == MOST else f"the last {last} images"
    if since is not None:
        words += f" since {window.since:%Y-%m-%d %H:%M} UTC"
    try:
        rows = read_window(store, window)
    except SQLAlchemyError as error:
        raise MachineError(f"{store.shown}: {describe_error(error)}") from None
    return check_drift(bundle, rows, window=words)


def others(store: LogStore, bundle: Bundle) -> int:
    """How many images of other models, versions or lanes the log holds.

    Raises:
        MachineError: The database cannot be reached.
    """
    mine = Window(bundle.info.name, bundle.info.version)
    try:
        return count_rows(store, Window(lane=None)) - count_rows(store, mine)
    except SQLAlchemyError as error:
        raise MachineError(f"{store.shown}: {describe_error(error)}") from None


def check_files(
    bundle: Bundle, paths: Sequence[Path], *, progress: Callable[[int], object] | None = None
) -> tuple[DriftResult, dict[Path, str]]:
    """Check image files, predicted and described as the service would.

    Args:
        bundle: The model.
        paths: Files, and folders of them.
        progress: Told of each file.

    Returns:
        The check, and why files could not be read.

    Raises:
        InputError: A path that is not there, a folder without images, or the bundle has no reference.
        MachineError: ONNX Runtime is not installed.
    """
    try:
        from pneumo.serving.drift.describe_files import describe_files
        from pneumo.serving.model.predictor import Predictor
    except ModuleNotFoundError as error:
        raise MachineError(missing_module(error)) from None
    looked = describe_files(Predictor(bundle), find_images(paths), progress=progress)
    folders = [path.resolve().name for path in paths if path.is_dir()]
    words = f"images of {', '.join(folders)}" if folders else "image files"  # a file's name may be a patient's
    return check_drift(bundle, looked.rows, window=words, served=False), looked.unreadable


def write_drift_report(checked: DriftResult, folder: Path) -> list[Path]:
    """Write Evidently's page and the check as JSON; where there was too little to draw, an older page goes.

    Returns:
        What was written.

    Raises:
        MachineError: Evidently is not installed.
    """
    folder.mkdir(parents=True, exist_ok=True)
    page, document = folder / PAGE, folder / DOCUMENT
    written = []
    if checked.check.verdict is Verdict.TOO_FEW:
        page.unlink(missing_ok=True)
    else:
        from pneumo.serving.drift.evidently_page import compose_page

        write_text(page, compose_page(checked.check, checked.reference, checked.window).page.decode())
        written.append(page)
    write_text(document, checked.check.model_dump_json(indent=2) + "\n")
    return [*written, document]
