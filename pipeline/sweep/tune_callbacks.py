"""The recorder of a sweep: a Ray Tune callback that writes each event into `sweep.json`. Loads Ray."""

import math
import time
from collections.abc import Callable
from typing import cast

from ray.tune import Callback, Stopper
from ray.tune.experiment import Trial as TuneTrial

from pneumo.pipeline.sweep import seed_repeats
from pneumo.pipeline.sweep.record import Round, Sweep, SweepFolder, Trial, TrialStatus
from pneumo.pipeline.sweep.reporter import SweepReporter
from pneumo.pipeline.sweep.trial import POINT, VALUE, Report, Task

INTERVAL = 1.0
"""Seconds between two updates of the reporter while nothing happens."""

_DISK_FULL = ("No space left on device", "Disk quota exceeded")


class Recorder(Callback, Stopper):
    """Writes `sweep.json` and updates the reporter, after each event and about once per second.

    Ray Tune pickles its callbacks and its stopper: unpickled, they are the recorder that the process uses by then.

    Attributes:
        began: `time.time()` at which this process took over the sweep, minus the wall time of earlier sessions.
        attempts: For each trial, the ID of its latest attempt, and `seconds` and `training` of those before it.
        restored: True once the trials of an earlier session are restored.
        stage: Name of Ray Tune's experiment; `repeating` is True if it repeats trials with other seeds, to which the
            time budget does not apply.
    """

    def __init__(self, folder: SweepFolder, sweep: Sweep, task: Task, began: float, reporter: SweepReporter) -> None:
        self.folder = folder
        self.sweep = sweep
        self.task = task
        self.reporter = reporter
        self.began = began - sweep.seconds
        self.attempts: dict[str, tuple[str, float, float]] = {}
        self.updated = 0.0
        self.restored = False
        self.stage = ""
        self.repeating = False

    def __reduce__(self) -> tuple[Callable[[], "Recorder | None"], tuple[()]]:
        return current_recorder, ()

    def now(self) -> float:
        """Return the seconds since the sweep began, without the time between an interruption and its resume."""
        return time.time() - self.began

    def __call__(self, trial_id: str, result: dict[str, object]) -> bool:
        """Return False: no trial is stopped on its own."""
        return False

    def stop_all(self) -> bool:
        """Return True if the time budget is spent."""
        budget = self.sweep.time_budget
        return budget is not None and not self.repeating and self.now() > budget

    def find_trial(self, trial: TuneTrial) -> Trial:
        """Return the record of a trial; make one, named `t01` and so on, for a new trial."""
        record = next((each for each in self.sweep.trials if each.id == trial.trial_id), None)
        if record is None:
            number = max((int(each.name[1:]) for each in self.sweep.trials), default=0) + 1
            parameters, seed = self.task.point(trial.config)
            record = Trial(
                name=trial.custom_trial_name or f"t{number:02d}",  # a trial that Ray Tune restored has a name
                id=trial.trial_id,
                parameters=parameters,
                seed=seed,
                stage=self.stage,
                repeats=(trial.config.get(POINT) or {}).get("repeats"),
            )
            self.sweep.trials.append(record)
        return record

    def on_step_begin(self, iteration: int, trials: list[TuneTrial], **_: object) -> None:
        """Drop, before the first step, the trials of this stage that Ray Tune did not restore; pause the others."""
        if self.restored:
            return
        self.restored = True
        ids = {trial.trial_id for trial in trials}
        self.sweep.trials = [
            trial
            for trial in self.sweep.trials
            if trial.id in ids or trial.status.is_final or trial.stage != self.stage
        ]
        self.pause_trials()

    def pause_trials(self) -> None:
        """Set running trials to waiting."""
        for trial in self.sweep.trials:
            if trial.status is TrialStatus.RUNNING:
                trial.status = TrialStatus.WAITING
        self.save()

    def on_step_end(self, iteration: int, trials: list[TuneTrial], **_: object) -> None:
        """Update the reporter if the last update is more than `INTERVAL` ago."""
        if time.monotonic() - self.updated > INTERVAL:
            self._update_reporter()

    def on_trial_start(self, iteration: int, trials: list[TuneTrial], trial: TuneTrial, **_: object) -> None:
        """Record that a worker began or resumed a trial."""
        record = self.find_trial(trial)
        record.status = TrialStatus.RUNNING
        if record.started is None:
            record.started = round(self.now(), 3)
        self.save()

    def on_trial_result(
        self, iteration: int, trials: list[TuneTrial], trial: TuneTrial, result: dict[str, object], **_: object
    ) -> None:
        """Record a trial's report; a full disk raises an `OSError`, which ends the sweep until it is resumed."""
        if VALUE not in result:
            return
        record, report = self.find_trial(trial), cast(Report, result)
        error = report.get("error")
        if error and any(text in error for text in _DISK_FULL):
            raise OSError(error)
        attempt, work, training = self.attempts.get(record.name, ("", 0.0, 0.0))
        if attempt != report["session"]:
            attempt, work, training = report["session"], record.seconds, record.training
            self.attempts[record.name] = (attempt, work, training)
        record.seconds = round(work + report["work"], 3)
        record.training = round(training + report["training"], 3)
        record.run = f"runs/{report['run']}"
        if error:
            record.error, record.status = error, TrialStatus.FAILED
        elif report.get("finished"):
            record.status = TrialStatus.DONE
        elif math.isfinite(report["round_value"]):
            entry = Round(
                epoch=report["epoch"],
                step=report["step"],
                value=report["round_value"],
                seconds=record.seconds,
                at=round(self.now(), 3),
            )
            record.rounds = [*(each for each in record.rounds if each.step < entry.step), entry]
        self.save()

    def on_trial_complete(self, iteration: int, trials: list[TuneTrial], trial: TuneTrial, **_: object) -> None:
        """Record that Ray Tune ended a trial, which was stopped unless it reported its end."""
        record = self.find_trial(trial)
        if not record.status.is_final:
            record.status = TrialStatus.STOPPED
            self.save()

    def on_trial_error(self, iteration: int, trials: list[TuneTrial], trial: TuneTrial, **_: object) -> None:
        """Record that Ray Tune gave up a trial whose worker died too often."""
        record = self.find_trial(trial)
        record.status, record.error = TrialStatus.FAILED, _describe_failure(trial)
        self.save()

    def save(self) -> None:
        """Write the record and update the reporter."""
        choice = seed_repeats.choose_winner(self.sweep)
        self.sweep.winner = choice.trial.name if choice else None
        self.sweep.seconds = round(self.now(), 3)
        self.folder.save(self.sweep)
        self._update_reporter()

    def _update_reporter(self) -> None:
        self.updated = time.monotonic()
        self.reporter.update(self.sweep, self.now())


_current: Recorder | None = None


def current_recorder() -> Recorder | None:
    """Return the recorder that receives this process's events."""
    return _current


def use_recorder(recorder: Recorder | None, stage: str = "", *, repeating: bool = False) -> None:
    """Set the recorder that receives this process's events, of one stage; `repeating` says if it repeats trials."""
    global _current
    _current = recorder
    if recorder:
        recorder.restored, recorder.stage, recorder.repeating = False, stage, repeating


def name_trial(trial: TuneTrial) -> str:
    """Return a trial's name; Ray Tune calls it for each new trial."""
    return _current.find_trial(trial).name if _current else str(trial.trial_id)


def last_line(text: str) -> str:
    """Return the last line that is not blank, which names the error of a traceback; empty if there is none."""
    return next((line.strip()[:300] for line in reversed(text.splitlines()) if line.strip()), "")


def _describe_failure(trial: TuneTrial) -> str:
    text = str(trial.get_error() or trial.get_pickled_error() or "")
    if any(word in text for word in ("OutOfMemory", "memory pressure", "running low on memory")):
        return "out of memory: its worker was killed; lower --concurrency, or the batch or image size"
    if any(word in text for word in ("ActorDiedError", "ActorUnavailable", "died", "WORKER_DIED")):
        return "its worker died repeatedly (killed, out of memory, or its machine is gone)"
    return last_line(text) or "Ray Tune gave it up without a reason"
