"""Writes down what Ray Tune's trials do, as they do it. Importing this loads Ray."""

import math
import time
from collections.abc import Iterable
from typing import Any

from ray.tune import Callback, Stopper
from ray.tune.experiment import Trial as TuneTrial

from pneumo.pipeline.sweep import seed_repeats
from pneumo.pipeline.sweep.record import Round, Sweep, SweepFolder, Trial, TrialStatus
from pneumo.pipeline.sweep.reporter import SWEEP_SILENT, SweepReporter
from pneumo.pipeline.sweep.trial import POINT, VALUE, Task

WATCH = 1.0
"""Seconds between two looks where nothing happens."""


class Recorder:
    """Keeps `sweep.json` true, and tells who watches.

    Attributes:
        sweep: The record; `folder` is where it is written.
        began: When this process took the sweep up, as `time.time()`, less the seconds that it had taken before.
        reporter: Receives the record after each event, and about once a second.
    """

    def __init__(
        self,
        folder: SweepFolder,
        sweep: Sweep,
        task: Task,
        began: float,
        reporter: SweepReporter = SWEEP_SILENT,
    ) -> None:
        self.folder = folder
        self.sweep = sweep
        self.task = task
        self.reporter = reporter
        self.began = began - sweep.seconds
        self.spent: dict[str, tuple[str, float, float]] = {}
        self.looked = 0.0
        self.taken_up = False
        self.repeating = False

    def now(self) -> float:
        """Seconds since the sweep began, without what lay between an interruption and its resume."""
        return time.time() - self.began

    def name_of(self, trial: TuneTrial) -> str:
        """The name of a trial, `t01` and so on in the order in which Ray Tune made them."""
        known = self._known(trial)
        if known is None:
            number = max((int(each.name[1:]) for each in self.sweep.trials), default=0) + 1
            parameters, seed = self.task.point(trial.config)
            stated = trial.config.get(POINT) or {}
            known = Trial(
                name=trial.custom_trial_name or f"t{number:02d}",  # one that Ray Tune brought back has its name
                id=trial.trial_id,
                parameters=parameters,
                seed=seed,
                repeats=stated.get("repeats"),
            )
            self.sweep.trials.append(known)
        return known.name

    def take_up(self, trials: Iterable[TuneTrial]) -> None:
        """Begin with what Ray Tune knows of an earlier session.

        Trials that it does not know had not finished a round, and are drawn anew; what was running waits.
        """
        ids = {trial.trial_id for trial in trials}

        def stays(trial: Trial) -> bool:
            of_another_stage = (trial.repeats is not None) is not self.repeating
            return trial.id in ids or trial.status in _ENDED or of_another_stage

        self.sweep.trials = [each for each in self.sweep.trials if stays(each)]
        self.pause()

    def pause(self) -> None:
        """Nothing runs any more, or not yet."""
        for each in self.sweep.trials:
            if each.status is TrialStatus.RUNNING:
                each.status = TrialStatus.WAITING
        self.note()

    def started(self, trial: TuneTrial) -> None:
        """A worker took a trial up."""
        known = self._record(trial)
        known.status = TrialStatus.RUNNING
        if known.started is None:
            known.started = round(self.now(), 3)
        self.note()

    def result(self, trial: TuneTrial, told: dict[str, Any]) -> None:
        """A trial reported."""
        known = self._record(trial)
        if told.get("error") and any(word in str(told["error"]) for word in _FULL):
            raise OSError(str(told["error"]))  # of the machine, not of the trial, which goes on once that is mended
        session, work, training = self.spent.get(known.name, ("", 0.0, 0.0))
        if session != told["session"]:
            session, work, training = told["session"], known.seconds, known.training
            self.spent[known.name] = (session, work, training)
        known.seconds = round(work + told["work"], 3)
        known.training = round(training + told["training"], 3)
        known.run = f"runs/{told['run']}"
        if told.get("error"):
            known.error, known.status = str(told["error"]), TrialStatus.FAILED
        elif told.get("finished"):
            known.status = TrialStatus.DONE
        elif math.isfinite(told["round_value"]):
            entry = Round(
                epoch=told["epoch"],
                step=told["step"],
                value=told["round_value"],
                seconds=known.seconds,
                at=round(self.now(), 3),
            )
            known.rounds = [*(each for each in known.rounds if each.step < entry.step), entry]
        self.note()

    def ended(self, trial: TuneTrial) -> None:
        """Ray Tune is through with a trial."""
        known = self._record(trial)
        if known.status not in _ENDED:
            known.status = TrialStatus.STOPPED
            self.note()

    def mark_failed(self, trial: TuneTrial) -> None:
        """A trial's worker died, once too often."""
        known = self._record(trial)
        known.status = TrialStatus.FAILED
        known.error = _reason(trial)
        self.note()

    def note(self) -> None:
        """Write the record and tell who watches."""
        choice = seed_repeats.choose_winner(self.sweep)
        self.sweep.winner = choice.trial.name if choice else None
        self.sweep.seconds = round(self.now(), 3)
        self.folder.save(self.sweep)
        self.look(force=True)

    def look(self, force: bool = False) -> None:
        """Tell who watches, now and then."""
        if force or time.monotonic() - self.looked > WATCH:
            self.looked = time.monotonic()
            self.reporter.update(self.sweep, self.now())

    def _known(self, trial: TuneTrial) -> Trial | None:
        return next((each for each in self.sweep.trials if each.id == trial.trial_id), None)

    def _record(self, trial: TuneTrial) -> Trial:
        self.name_of(trial)
        known = self._known(trial)
        assert known is not None
        return known


_ENDED = (TrialStatus.DONE, TrialStatus.STOPPED, TrialStatus.FAILED)
_FULL = ("No space left on device", "Disk quota exceeded")
_current: Recorder | None = None


class Relay(Callback):
    """Passes Ray Tune's events on to this process's recorder; it holds nothing, since Ray Tune pickles it."""

    def on_step_begin(self, iteration: int, trials: list[TuneTrial], **_: Any) -> None:
        """Before a turn of Ray Tune's loop: before the first, `trials` are those of an earlier session."""
        if _current and not _current.taken_up:
            _current.taken_up = True
            _current.take_up(trials)

    def on_step_end(self, iteration: int, trials: list[TuneTrial], **_: Any) -> None:
        """A turn of Ray Tune's loop."""
        if _current:
            _current.look()

    def on_trial_start(self, iteration: int, trials: list[TuneTrial], trial: TuneTrial, **_: Any) -> None:
        """A worker took a trial up."""
        if _current:
            _current.started(trial)

    def on_trial_result(
        self, iteration: int, trials: list[TuneTrial], trial: TuneTrial, result: dict[str, Any], **_: Any
    ) -> None:
        """A trial reported."""
        if _current and VALUE in result:
            _current.result(trial, result)

    def on_trial_complete(self, iteration: int, trials: list[TuneTrial], trial: TuneTrial, **_: Any) -> None:
        """A trial ended or was stopped."""
        if _current:
            _current.ended(trial)

    def on_trial_error(self, iteration: int, trials: list[TuneTrial], trial: TuneTrial, **_: Any) -> None:
        """A trial failed for good."""
        if _current:
            _current.mark_failed(trial)


class Budget(Stopper):
    """Ends a search whose time is over, by the clock of this process's recorder; Ray Tune pickles it, too."""

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
        """No trial is stopped on its own."""
        return False

    def stop_all(self) -> bool:
        """Whether the time is over."""
        if _current is None or _current.repeating or _current.sweep.time_budget is None:
            return False
        return _current.now() > _current.sweep.time_budget


def use(recorder: Recorder | None, *, repeating: bool = False) -> None:
    """Make a recorder the one that this process's events go to.

    Args:
        recorder: It, or None.
        repeating: Whether the trials to come repeat others with other seeds; then no time budget holds.
    """
    global _current
    _current = recorder
    if recorder:
        recorder.taken_up, recorder.repeating = False, repeating


def trial_name(trial: TuneTrial) -> str:
    """What Ray Tune is to call a trial."""
    return _current.name_of(trial) if _current else str(trial.trial_id)


def _reason(trial: TuneTrial) -> str:
    error = trial.get_error()
    text = str(error or trial.get_pickled_error() or "").strip()
    if any(word in text for word in ("OutOfMemory", "memory pressure", "running low on memory")):
        return "out of memory: its worker was killed; fewer trials at once (--concurrency), or a smaller batch or image"
    if any(word in text for word in ("ActorDiedError", "ActorUnavailable", "died", "WORKER_DIED")):
        return "its worker died again and again (killed, out of memory, or its machine is gone)"
    lines = [line for line in text.splitlines() if line.strip()]
    return lines[-1].strip()[:300] if lines else "Ray Tune gave it up without a reason"
