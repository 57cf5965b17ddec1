"""Makes drift checks while the service runs: by time or by number of images, in a process of its own.

Every process of the service polls the log. One of them, which holds a lease in the database, starts the checks; all of
them export the last one to Prometheus.
"""

import logging
import math
import os
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta

from pydantic import ValidationError
from sqlalchemy.exc import SQLAlchemyError

from pneumo.serving.contracts.settings import PREFIX, Settings
from pneumo.serving.drift.job import LIMIT_S, NOT_POSTED
from pneumo.serving.drift.samples import LEAST
from pneumo.serving.drift.stored_checks import latest_check
from pneumo.serving.drift.verdict import DriftCheck, Verdict
from pneumo.serving.model.bundle import Bundle
from pneumo.serving.predictions.leases import Lease
from pneumo.serving.predictions.store import LogStore, describe_error
from pneumo.serving.predictions.windows import Window, count_rows
from pneumo.serving.telemetry.metrics import SHARED, Metrics

POLL_S = 15.0
"""Seconds between two looks at the log."""
LEASE = timedelta(seconds=60)
"""Time for which a process that died keeps others from making checks."""
RETRY_S = 600.0
"""Maximum seconds between a failed check and the next one."""

_STEP_S = 0.25
_log = logging.getLogger("pneumo.drift")


class CheckError(Exception):
    """A check failed; the message says why, without a secret."""


def build_job_command(bundle: Bundle) -> Sequence[str]:
    """Build the command of one check; `-P` keeps modules of the working directory out of it."""
    return [sys.executable, "-P", "-m", "pneumo.serving.drift.job", str(bundle.folder)]


class Schedule:
    """Starts checks from a thread of its own; an error here never reaches a request."""

    def __init__(
        self,
        settings: Settings,
        store: LogStore,
        metrics: Metrics,
        champion: Callable[[], Bundle | None],
        *,
        command: Callable[[Bundle], Sequence[str]] = build_job_command,
    ) -> None:
        """Start the thread; `champion` returns the served bundle, `command` the arguments of the job."""
        self._settings = settings
        self._store = store
        self._metrics = metrics
        self._champion = champion
        self._command = command
        self._lease = Lease(store, "drift", uuid.uuid4().hex, lasts=LEASE)
        self._prepared = False
        self._not_before = 0.0
        self._untold = False
        self._reported: str | None = None
        self._ends = threading.Event()
        self._thread = threading.Thread(target=self._run, name="drift", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """End the thread, and a check under way."""
        self._ends.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._ends.is_set():
            try:
                self._poll()
            except SQLAlchemyError as error:
                self._report(f"the log's database {self._store.shown} cannot be reached ({describe_error(error)})")
            except Exception as error:  # a document of another release, no memory for a process: the service goes on
                self._count_failure(type(error).__name__)
            self._ends.wait(POLL_S)
        try:
            self._lease.release()
        except SQLAlchemyError:
            return  # the lease expires

    def _poll(self) -> None:
        bundle = self._champion()
        if bundle is None:
            return
        if not self._prepared:
            self._store.prepare()
            self._prepared = True
        stored = latest_check(self._store, bundle.info.name, bundle.info.version)
        last = stored.check if stored else None
        self._export(last)
        if time.monotonic() < self._not_before or not self._lease.take() or not self._is_due(bundle, last):
            return
        try:
            check = self._run_job(bundle)
        except CheckError as error:
            self._count_failure(str(error))
            return
        if check is not None:
            self._export(check)
            self._metrics.drift_checks.series(check.verdict.value).inc()

    def _export(self, check: DriftCheck | None) -> None:
        """Export the last check to Prometheus; None if there is none of the served model."""
        if check is None:
            self._metrics.show_drift(Verdict.TOO_FEW.value, 0.0, {})
        else:
            p_values = {column.name: column.adjusted for column in check.columns}
            sites = {each.site: each.verdict.value for each in check.sites}
            self._metrics.show_drift(check.verdict.value, check.time.timestamp(), p_values, sites)

    def _is_due(self, bundle: Bundle, last: DriftCheck | None) -> bool:
        rows, minutes = self._settings.drift_rows, self._settings.drift_minutes
        since = (last.last or last.time) + timedelta.resolution if last else None
        window = Window(bundle.info.name, bundle.info.version, since=since)
        images = count_rows(self._store, window, most=max(rows or 0, LEAST))
        if rows is not None and images >= rows:
            return True
        if minutes is None:
            return False
        if last is None:
            return images >= LEAST
        return images > 0 and datetime.now(UTC) - last.time >= timedelta(minutes=minutes)

    def _run_job(self, bundle: Bundle) -> DriftCheck | None:
        """Run the job; return None if the service ends first.

        Raises:
            CheckError: The job failed, or took too long.
        """
        with subprocess.Popen(
            self._command(bundle),
            env=self._build_environment(),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        ) as process:
            try:
                output = self._await(process)
            finally:
                process.kill()  # which does nothing to a process that has ended
        if output is None:
            return None
        printed, errors = output
        if process.returncode not in (0, NOT_POSTED):
            raise CheckError(_read_reason(process.returncode, errors))
        try:
            check = DriftCheck.model_validate_json(printed)
        except ValidationError:
            raise CheckError("the job printed no check") from None
        self._untold = process.returncode == NOT_POSTED
        if self._untold:
            self._report(_read_reason(NOT_POSTED, errors))
        elif self._reported:
            _log.warning("drift checks work again")
            self._reported = None
        return check

    def _await(self, process: subprocess.Popen[bytes]) -> tuple[bytes, bytes] | None:
        renew_s = LEASE.total_seconds() / 3
        ends, renew = time.monotonic() + LIMIT_S, time.monotonic() + renew_s
        while not self._ends.is_set():
            try:
                return process.communicate(timeout=_STEP_S)
            except subprocess.TimeoutExpired:
                now = time.monotonic()
            if now >= ends:
                raise CheckError(f"it took longer than {LIMIT_S:g} s")
            if now >= renew:
                renew = now + renew_s
                if not self._lease.take():
                    raise CheckError("another process makes checks now")
        return None

    def _build_environment(self) -> dict[str, str]:
        """Return the environment of the job: its settings, and one core for every library."""
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

    def _count_failure(self, reason: str) -> None:
        self._metrics.drift_checks.series("failed").inc()
        self._not_before = time.monotonic() + min(RETRY_S, (self._settings.drift_minutes or math.inf) * 60)
        self._report(f"a drift check failed: {reason}")

    def _report(self, problem: str) -> None:
        """Log a problem once."""
        if problem != self._reported:
            self._reported = problem
            _log.error("%s", problem)


def _read_reason(code: int, errors: bytes) -> str:
    """Return the last line of a job's errors, but of no traceback, since that can hold values."""
    if code < 0:
        return f"killed by signal {-code}"
    lines = errors.decode(errors="replace").strip().splitlines()
    reason = lines[-1].removeprefix("pneumo: ") if lines and lines[-1].startswith("pneumo: ") else ""
    return reason[:300] or f"exit {code}"
