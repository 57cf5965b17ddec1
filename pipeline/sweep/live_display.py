"""What a person sees of a sweep while it runs: a live table on a terminal, a line an event elsewhere."""

import math
from typing import TYPE_CHECKING

from pneumo.pipeline.sweep.parameter_format import Axis, axes, duration, number
from pneumo.pipeline.sweep.record import Sweep, Trial, TrialStatus
from pneumo.pipeline.sweep.reporter import SweepReporter
from pneumo.pipeline.sweep.seed_repeats import find_contenders

if TYPE_CHECKING:
    from rich.console import Console, RenderableType
    from rich.live import Live

SLOW_EPOCH = 30.0
"""Seconds from which on an epoch is worth a line of its own."""

_ENDED = frozenset({TrialStatus.DONE, TrialStatus.STOPPED, TrialStatus.FAILED})
_AROUND = 6
"""Lines of a screen that are no trials: above and below the table, its head and frame."""

_REDRAW = 0.2
_STYLES = {TrialStatus.RUNNING: "cyan", TrialStatus.FAILED: "red", TrialStatus.STOPPED: "dim"}


class LiveDisplay(SweepReporter):
    """A context whose `update` shows how far a sweep is.

    Args:
        console: Where to; standard error by default. On a terminal a table is redrawn in place, and gone at the end.
    """

    def __init__(self, console: "Console | None" = None) -> None:
        from rich.console import Console

        super().__init__()
        self._console = console or Console(stderr=True, highlight=False)
        self._live: Live | None = None
        self._log = Log()
        self._drawn = -math.inf

    def __enter__(self) -> "LiveDisplay":
        if self._console.is_terminal:
            from rich.live import Live

            self._live = Live(console=self._console, auto_refresh=False, transient=True)
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._live:
            self._live.stop()
            self._live = None

    def message(self, text: str) -> None:
        """Print a line, above the table if there is one."""
        self._console.print(text, soft_wrap=True, markup=False)

    warning = message

    def update(self, sweep: Sweep, now: float) -> None:
        """Show a sweep.

        Args:
            sweep: As it stands. It is read before this returns and not kept.
            now: Seconds since the sweep began, on the clock of `Round.at`.
        """
        if self._live is None:
            for line in self._log.lines(sweep, now):
                self._console.print(line, soft_wrap=True, markup=False)
            return
        if now < self._drawn or now - self._drawn >= _REDRAW:
            self._drawn = now
            self._live.update(render(sweep, now, height=self._console.height), refresh=True)


class Log:
    """Tells what is new in a sweep since it was last asked, a line an event."""

    def __init__(self) -> None:
        self._begun: set[str] = set()
        self._ended: set[str] = set()
        self._rounds: dict[str, int] = {}
        self._leader: str | None = None
        self._first = True

    def lines(self, sweep: Sweep, now: float) -> list[str]:
        """What is new.

        A trial that begins or ends, one that takes the lead from another, and an epoch that took over `SLOW_EPOCH`
        seconds. What had ended when the log was first asked, as before a resume, is one line in all.
        """
        found: list[str] = []
        known = axes(sweep)
        if self._first:
            self._first = False
            found += self._before(sweep)
        for trial in sweep.trials:
            if trial.status != TrialStatus.WAITING and trial.name not in self._begun:
                self._begun.add(trial.name)
                found.append(_begins(sweep, trial, known))
            if trial.name in self._ended:
                continue
            found += self._epochs(sweep, trial)
        leaders = find_contenders(sweep)
        if leaders and leaders[0].name != self._leader:
            if self._leader is not None:
                value = number(leaders[0].value(sweep.goal))
                found.append(f"{leaders[0].name} takes the lead: {sweep.metric} {value}")
            self._leader = leaders[0].name
        for trial in sweep.trials:
            if trial.status in _ENDED and trial.name not in self._ended:
                self._ended.add(trial.name)
                found.append(_ends(sweep, trial, now))
        return found

    def _before(self, sweep: Sweep) -> list[str]:
        ended = [trial for trial in sweep.trials if trial.status in _ENDED]
        self._begun |= {trial.name for trial in ended}
        self._ended |= {trial.name for trial in ended}
        self._rounds |= {trial.name: len(trial.rounds) for trial in sweep.trials}
        leaders = find_contenders(sweep)
        self._leader = leaders[0].name if leaders else None
        if not ended:
            return []
        best = f"; {_best_so_far(sweep)}" if leaders else ""
        return [f"{len(ended)} of {expected(sweep)} trials have ended already{best}"]

    def _epochs(self, sweep: Sweep, trial: Trial) -> list[str]:
        seen = self._rounds.get(trial.name, 0)
        self._rounds[trial.name] = len(trial.rounds)
        found = []
        for index in range(seen, len(trial.rounds)):
            each = trial.rounds[index]
            took = each.seconds - (trial.rounds[index - 1].seconds if index else 0.0)
            if took > SLOW_EPOCH:
                found.append(
                    f"{trial.name} epoch {each.epoch} of {sweep.epochs}, {duration(took)}: "
                    f"{sweep.metric} {number(each.value)}"
                )
        return found


def render(sweep: Sweep, now: float, *, height: int) -> "RenderableType":
    """A screen: the table of trials between what is known of the whole.

    Running trials come first, then the best, then failed ones; what does not fit is counted.

    Args:
        sweep: As it stands.
        now: Seconds since the sweep began.
        height: Lines of the terminal.
    """
    from rich.console import Group
    from rich.markup import escape
    from rich.table import Table
    from rich.text import Text

    known = axes(sweep)
    running = [trial for trial in sweep.trials if trial.status == TrialStatus.RUNNING]
    ranked = [trial for trial in find_contenders(sweep) if trial.status != TrialStatus.RUNNING]
    named = {trial.name for trial in (*running, *ranked)}
    others = [trial for trial in sweep.trials if trial.name not in named]
    others.sort(key=lambda trial: trial.status == TrialStatus.WAITING)
    ordered = [*running, *ranked, *others]
    room = max(1, height - _AROUND)
    shown = ordered if len(ordered) <= room else ordered[: max(1, room - 1)]
    leaders = find_contenders(sweep)
    best = leaders[0].name if leaders else None

    table = Table(box=None, pad_edge=False, expand=True)
    table.add_column("trial", no_wrap=True)
    table.add_column("state", no_wrap=True)
    table.add_column("parameters", no_wrap=True, overflow="ellipsis", ratio=1)
    for title in (sweep.metric, "best", "epoch", "time"):
        table.add_column(escape(title), justify="right", no_wrap=True)
    for trial in shown:
        last = trial.rounds[-1] if trial.rounds else None
        state = trial.status.value if trial.status != TrialStatus.FAILED else f"failed: {trial.error or 'no reason'}"
        cells = (
            trial.name + (f" = {trial.repeats}" if trial.repeats else ""),
            state if len(state) <= 28 else state[:25] + "...",
            _parameters(trial, known),
            number(last.value) if last else "",
            number(trial.value(sweep.goal)) if last else "",
            f"{last.epoch if last else 0}/{sweep.epochs}",
            duration(_spent(trial, now)) if trial.started is not None else "",
        )
        style = "bold green" if trial.name == best else _STYLES.get(trial.status)
        table.add_row(*(Text(cell) for cell in cells), style=style)
    parts: list[RenderableType] = [Text(headline(sweep, now), no_wrap=True, overflow="ellipsis"), table]
    if len(shown) < len(ordered):
        parts.append(Text(f"... {len(ordered) - len(shown)} more", style="dim"))
    parts.append(Text(_best_so_far(sweep) if best else f"no {sweep.metric} yet", no_wrap=True, overflow="ellipsis"))
    return Group(*parts)


def headline(sweep: Sweep, now: float) -> str:
    """How far a sweep is, in a line."""
    ended = sum(trial.status in _ENDED for trial in sweep.trials)
    failed = sum(trial.status == TrialStatus.FAILED for trial in sweep.trials)
    parts = [f"{ended} of {expected(sweep)} trials"]
    if failed:
        parts.append(f"{failed} failed")
    parts.append(duration(now))
    left = time_left(sweep, now)
    if left is not None:
        parts.append(f"about {duration(left)} left")
    return ", ".join(parts)


def expected(sweep: Sweep) -> int:
    """Trials in all, repetitions with other seeds included."""
    repeated = min(sweep.top, sweep.wanted) * max(0, sweep.seeds - 1)
    return max(sweep.wanted + repeated, len(sweep.trials))


def time_left(sweep: Sweep, now: float) -> float | None:
    """Seconds to the end, guessed: what trials took so far for those to come, shared by those that run at a time.

    Before a first trial ended it goes by the epochs of those that run. Never more than what the time budget leaves.

    Returns:
        None before anything is known.
    """
    ended = [trial for trial in sweep.trials if trial.status in (TrialStatus.DONE, TrialStatus.STOPPED)]
    running = [trial for trial in sweep.trials if trial.status == TrialStatus.RUNNING]
    failed = sum(trial.status == TrialStatus.FAILED for trial in sweep.trials)
    limits = [] if sweep.time_budget is None else [max(0.0, sweep.time_budget - now)]
    rates = [trial.rounds[-1].seconds / trial.rounds[-1].epoch for trial in running if trial.rounds]
    if ended:
        each = math.fsum(trial.seconds for trial in ended) / len(ended)
    elif rates:
        each = sweep.epochs * math.fsum(rates) / len(rates)
    else:
        return min(limits, default=None)
    to_come = expected(sweep) - len(ended) - len(running) - failed
    rest = [max(0.0, each - _spent(trial, now)) for trial in running]
    work = each * max(0, to_come) + math.fsum(rest)
    longest = max(rest, default=0.0)  # trials cannot be split: the end waits for the slowest
    return min([max(work / max(1, sweep.concurrency), longest), *limits])


def _spent(trial: Trial, now: float) -> float:
    if trial.status != TrialStatus.RUNNING or trial.started is None:
        return trial.seconds
    return max(trial.seconds, now - trial.started)


def _begins(sweep: Sweep, trial: Trial, known: list[Axis]) -> str:
    again = f" (again {trial.repeats}, seed {trial.seed})" if trial.repeats else ""
    return f"{trial.name} begins{again}: {_parameters(trial, known)}".rstrip(": ")


def _ends(sweep: Sweep, trial: Trial, now: float) -> str:
    epochs = trial.rounds[-1].epoch if trial.rounds else 0
    after = f"{epochs} of {sweep.epochs} epochs, {duration(trial.seconds)}"
    if trial.status == TrialStatus.FAILED:
        why = " ".join((trial.error or "no reason was given").split())
        text = f"{trial.name} failed after {after}: {why}"
    elif trial.rounds:
        text = f"{trial.name} {trial.status.value} after {after}: {sweep.metric} {number(trial.value(sweep.goal))}"
    else:
        text = f"{trial.name} {trial.status.value} after {after}"
    best = f"; {_best_so_far(sweep)}" if find_contenders(sweep) else ""
    return f"{text}{best}; {headline(sweep, now)}"


def _best_so_far(sweep: Sweep) -> str:
    best = find_contenders(sweep)[0]
    return f"best so far {number(best.value(sweep.goal))} ({best.name})"


def _parameters(trial: Trial, known: list[Axis]) -> str:
    shown = [axis for axis in known if axis.name in trial.parameters]
    return ", ".join(f"{axis.short} {axis.text(trial.parameters[axis.name])}" for axis in shown)
