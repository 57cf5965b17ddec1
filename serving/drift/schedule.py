"""Makes drift checks while the service runs: by time or by number of images, in a process of its own.

Every process of the service looks at the log now and then. One of them, by a lease in the database, starts the checks;
all of them tell Prometheus what the last one said.
"""

import logging
import os
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta

from pydantic import ValidationError
from sqlalchemy import func, select
from sqlalchemy.exc import SQLAlchemyError

from pneumo.serving.contracts.settings import PREFIX, Settings
from pneumo.serving.drift.column_tests import LEAST
from pneumo.serving.drift.job import LIMIT_S, NOT_POSTED
from pneumo.serving.drift.stored_checks import latest_check
from pneumo.serving.drift.verdict import DriftCheck, Verdict
from pneumo.serving.model.bundle import Bundle, BundleInfo
from pneumo.serving.predictions.leases import Lease
from pneumo.serving.predictions.log_tables import predictions
from pneumo.serving.predictions.store import LogStore, describe_error
from pneumo.serving.telemetry.metrics import SHARED, Metrics

LOOK_S = 15.0
"""Seconds between two looks at the log."""
LEASE = timedelta(seconds=60)
RETRY_S = 600.0
"""Seconds after a check that failed, unless checks are more frequent."""

_BEAT_S = 0.25
_log = logging.getLogger("pneumo.drift")

Command = Callable[[Bundle], Sequence[str]]


class CheckError(Exception):
    """A check failed; the message says why, without a secret."""


def build_job_command(bundle: Bundle) -> Sequence[str]:
    """Build the command that makes one check; `-P` keeps modules of the working directory out of it."""
    return [sys.executable, "-P", "-m", "pneumo.serving.drift.job", str(bundle.folder)]


class Schedule:
    """Starts checks from a thread of its own; nothing that fails here reaches a request."""

    def __init__(
        self,
        settings: Settings,
        store: LogStore,
        metrics: Metrics,
        champion: Callable[[], Bundle | None],
        *,
        command: Command = build_job_command,
        look_s: float = LOOK_S,
        lease: timedelta = LEASE,
    ) -> None:
        """Start the thread.

        Args:
            settings: When to check, and about what.
            store: The prediction log.
            metrics: Told of checks.
            champion: What is served, or None before it is loaded.
            command: Makes a check and prints it.
            look_s: Seconds between two looks at the log.
            lease: How long a process that died keeps others from making checks.
        """
        self._settings = settings
        self._store = store
        self._metrics = metrics
        self._champion = champion
        self._command = command
        self._look_s = look_s
        self._lease = Lease(store, "drift", uuid.uuid4().hex, lasts=lease)
        self._renew_s = lease.total_seconds() / 3
        self._prepared = False
        self._not_before = 0.0
        self._untold = False
        self._said: str | None = None
        self._ends = threading.Event()
        self._thread = threading.Thread(target=self._work, name="drift", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """End, and end a check that is being made."""
        self._ends.set()
        self._thread.join()

    def _work(self) -> None:
        while not self._ends.is_set():
            try:
                self._look()
            except SQLAlchemyError as error:
                self._say(f"the log's database {self._store.shown} is away ({describe_error(error)})")
            except Exception as error:  # a document of another release, no memory for a process: the service goes on
                self._failed(type(error).__name__)
            self._ends.wait(self._look_s)
        try:
            self._lease.release()
        except SQLAlchemyError:
            return  # it ends by time

    def _look(self) -> None:
        bundle = self._champion()
        if bundle is None:
            return
        if not self._prepared:
            self._store.prepare()
            self._prepared = True
        stored = latest_check(self._store, bundle.info.name, bundle.info.version)
        last = stored.check if stored else None
        self._show(last)
        if time.monotonic() < self._not_before or not self._lease.take() or not self._is_due(bundle, last):
            return
        try:
            made = self._check(bundle)
        except CheckError as error:
            self._failed(str(error))
            return
        if made is not None:
            self._show(made)
            self._metrics.count_drift_check(made.verdict.value)

    def _show(self, check: DriftCheck | None) -> None:
        """Tell Prometheus of the last check; None if there is none of the model that is served."""
        if check is None:
            self._metrics.show_drift(Verdict.TOO_FEW.value, 0.0, {})
        else:
            p_values = {column.name: column.adjusted for column in check.columns}
            self._metrics.show_drift(check.verdict.value, check.time.timestamp(), p_values)

    def _is_due(self, bundle: Bundle, last: DriftCheck | None) -> bool:
        settings = self._settings
        wanted = settings.drift_rows or LEAST
        since = (last.last or last.time) if last else None
        came = count_served_since(self._store, bundle.info, since, most=max(wanted, LEAST))
        if settings.drift_rows is not None and came >= settings.drift_rows:
            return True
        if settings.drift_minutes is None:
            return False
        if last is None:
            return came >= LEAST
        return came > 0 and datetime.now(UTC) - last.time >= timedelta(minutes=settings.drift_minutes)

    def _check(self, bundle: Bundle) -> DriftCheck | None:
        """Run the job; None where the service ends before it.

        Raises:
            CheckError: It failed, or took too long.
        """
        process = subprocess.Popen(
            self._command(bundle),
            env=self._environment(),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        try:
            output = self._await(process)
        finally:
            if process.poll() is None:
                process.kill()
                process.communicate()
        if output is None:
            return None
        printed, said = output
        if process.returncode not in (0, NOT_POSTED):
            raise CheckError(_reason(process.returncode, said))
        try:
            made = DriftCheck.model_validate_json(printed)
        except ValidationError:
            raise CheckError("the job printed no check") from None
        self._untold = process.returncode == NOT_POSTED
        if self._untold:
            self._say(_reason(NOT_POSTED, said))
        elif self._said:
            _log.warning("drift checks work again")
            self._said = None
        return made

    def _await(self, process: subprocess.Popen[bytes]) -> tuple[bytes, bytes] | None:
        ends = time.monotonic() + LIMIT_S
        renew = time.monotonic() + self._renew_s
        while not self._ends.is_set():
            try:
                return process.communicate(timeout=_BEAT_S)
            except subprocess.TimeoutExpired:
                now = time.monotonic()
            if now >= ends:
                raise CheckError(f"it took longer than {LIMIT_S:g} s")
            if now >= renew:
                renew = now + self._renew_s
                if not self._lease.take():
                    raise CheckError("another process makes checks now")
        return None

    def _environment(self) -> dict[str, str]:
        """Of the job: the settings it needs, as they are here, and one core for every library."""
        settings, webhook = self._settings, self._settings.drift_webhook
        given = {
            "LOG_URL": settings.log_url,
            "DRIFT_WINDOW": str(settings.drift_window),
            "DRIFT_WEBHOOK": webhook and webhook.get_secret_value(),
            "PUBLIC_URL": settings.public_url,
            "DRIFT_UNTOLD": "1" if self._untold else None,
        }
        kept = {name: value for name, value in os.environ.items() if not name.startswith(PREFIX) and name != SHARED}
        cores = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
        return kept | cores | {PREFIX + name: value for name, value in given.items() if value}

    def _failed(self, reason: str) -> None:
        self._metrics.count_drift_check("failed")
        minutes = self._settings.drift_minutes
        self._not_before = time.monotonic() + (RETRY_S if minutes is None else min(RETRY_S, minutes * 60))
        self._say(f"a drift check failed: {reason}")

    def _say(self, text: str) -> None:
        """Log what is wrong, once."""
        if text != self._said:
            self._said = text
            _log.error("%s", text)


def count_served_since(store: LogStore, info: BundleInfo, since: datetime | None, *, most: int) -> int:
    """Count the images that a version answered as champion after a moment, up to a number.

    Raises:
        SQLAlchemyError: The database is away.
    """
    table = predictions.c
    where = [table.model == info.name, table.version == info.version, table.lane == "champion"]
    if since is not None:
        where.append(table.time > since)
    with store.engine.connect() as connection:
        few = select(table.id).where(*where).limit(most).subquery()
        return connection.execute(select(func.count()).select_from(few)).scalar_one()


def _reason(code: int, said: bytes) -> str:
    """The last line of what a job said; a traceback is left out, since it can hold values."""
    if code < 0:
        return f"killed by signal {-code}"
    lines = said.decode(errors="replace").strip().splitlines()
    known = lines[-1].removeprefix("pneumo: ") if lines and lines[-1].startswith("pneumo: ") else ""
    return known[:300] or f"exit {code}"
