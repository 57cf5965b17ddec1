"""The display of a running sweep: a live table on a terminal, else one line per event."""

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from pneumo.pipeline.sweep.parameter_format import Axis, axes, cut, number
from pneumo.pipeline.sweep.record import Sweep, Trial, TrialStatus
from pneumo.pipeline.sweep.reporter import SweepReporter
from pneumo.pipeline.sweep.seed_repeats import choose_winner, find_contenders, order_trials
from pneumo.serving.contracts.quantities import format_count, format_duration

if TYPE_CHECKING:
    from rich.console import Console, RenderableType
    from rich.live import Live
    from rich.table import Table

SLOW_EPOCH = 30.0
"""Seconds above which an epoch gets its own log line."""

_OTHER_LINES = 6
"""Lines of the screen that are no trials: above and below the table, its head and frame."""

SHOWN = 20
"""Trials in the table at the end."""

_REDRAW = 0.2
_STYLES = {TrialStatus.RUNNING: "cyan", TrialStatus.FAILED: "red", TrialStatus.STOPPED: "dim"}


class LiveDisplay(SweepReporter):
    """A context manager that shows a sweep: on a terminal a table that is redrawn, and erased at the end."""

    def __init__(self, console: "Console | None" = None) -> None:
        from rich.console import Console

        super().__init__()
        self._console = console or Console(stderr=True, highlight=False)
        self._live: Live | None = None
        self._log = EventLog()
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
        """Show the record, `now` seconds after the sweep began."""
        if self._live is None:
            for line in self._log.list_events(sweep, now):
                self.message(line)
        elif now < self._drawn or now - self._drawn >= _REDRAW:
            self._drawn = now
            self._live.update(render(sweep, now, height=self._console.height), refresh=True)


class EventLog:
    """Lists the events of a sweep since the last call, one line each."""

    def __init__(self) -> None:
        self._begun: set[str] = set()
        self._ended: set[str] = set()
        self._rounds: dict[str, int] = {}
        self._leader: str | None = None
        self._first = True

    def list_events(self, sweep: Sweep, now: float) -> list[str]:
        """Return the new events: starts, ends, a new leader, and epochs over `SLOW_EPOCH` seconds.

        The first call sums up in one line all trials that have ended, as those before a resume.
        """
        events = self._sum_up(sweep) if self._first else []
        self._first = False
        shown = axes(sweep)
        for trial in sweep.trials:
            if trial.status != TrialStatus.WAITING and trial.name not in self._begun:
                self._begun.add(trial.name)
                again = f" (repeats {trial.repeats} with seed {trial.seed})" if trial.repeats else ""
                events.append(f"{trial.name} begins{again}: {_list_parameters(trial, shown)}".rstrip(": "))
            if trial.name not in self._ended:
                events += self._list_slow_epochs(sweep, trial)
        leader = next(iter(find_contenders(sweep)), None)
        if leader and leader.name != self._leader:
            if self._leader is not None:
                events.append(f"{leader.name} takes the lead: {sweep.metric_name} {number(leader.value(sweep.goal))}")
            self._leader = leader.name
        for trial in sweep.trials:
            if trial.status.is_final and trial.name not in self._ended:
                self._ended.add(trial.name)
                events.append(_describe_end(sweep, trial, now))
        return events

    def _sum_up(self, sweep: Sweep) -> list[str]:
        ended = {trial.name for trial in sweep.trials if trial.status.is_final}
        self._begun |= ended
        self._ended |= ended
        self._rounds = {trial.name: len(trial.rounds) for trial in sweep.trials}
        text = f"{len(ended)} of {format_count(count_expected(sweep), 'trial')} ended already"
        return ["; ".join((text, *_best_so_far(sweep)))] if ended else []

    def _list_slow_epochs(self, sweep: Sweep, trial: Trial) -> list[str]:
        first = self._rounds.get(trial.name, 0)
        self._rounds[trial.name] = len(trial.rounds)
        starts = [0.0, *(each.seconds for each in trial.rounds)]
        return [
            f"{trial.name} epoch {each.epoch} of {sweep.epochs}, {format_duration(each.seconds - start)}: "
            f"{sweep.metric_name} {number(each.value)}"
            for each, start in list(zip(trial.rounds, starts, strict=False))[first:]
            if each.seconds - start > SLOW_EPOCH
        ]


def render(sweep: Sweep, now: float, *, height: int) -> "RenderableType":
    """Return a screen: a headline, the table of trials, and the best value so far.

    Running trials come first, then the best, then failed ones; trials that do not fit into `height` lines are counted.
    """
    contenders = find_contenders(sweep)
    running = [trial for trial in sweep.trials if trial.status == TrialStatus.RUNNING]
    ranked = [trial for trial in contenders if trial.status != TrialStatus.RUNNING]
    names = {trial.name for trial in (*running, *ranked)}
    others = [trial for trial in sweep.trials if trial.name not in names]
    ordered = [*running, *ranked, *sorted(others, key=lambda trial: trial.status == TrialStatus.WAITING)]
    room = max(1, height - _OTHER_LINES)
    fitting = ordered if len(ordered) <= room else ordered[: max(1, room - 1)]
    table = _draw_table(sweep, fitting, now, contenders[:1])
    more = f"... {len(ordered) - len(fitting)} more" if len(fitting) < len(ordered) else ""
    return _stack(headline(sweep, now), table, more, *(_best_so_far(sweep) or [f"no {sweep.metric_name} yet"]))


def render_result(sweep: Sweep, *, limit: int = SHOWN) -> "RenderableType":
    """Return the table of the best trials of a sweep that ended, and the number of the others."""
    choice, ordered = choose_winner(sweep), order_trials(sweep)
    table = _draw_table(sweep, ordered[:limit], sweep.seconds, choice.family.trials if choice else (), whole=True)
    more = f"and {len(ordered) - limit} more in trials.csv" if len(ordered) > limit else ""
    return _stack(f"{sweep.metric_name}, {sweep.goal}d", table, more)


def _stack(above: str, table: "Table", *below: str) -> "RenderableType":
    from rich.console import Group
    from rich.text import Text

    first, *others = (Text(line, no_wrap=True, overflow="ellipsis") for line in (above, *filter(None, below)))
    return Group(first, table, *others)


def _draw_table(
    sweep: Sweep, trials: Sequence[Trial], now: float, winners: Sequence[Trial], *, whole: bool = False
) -> "Table":
    """Return a table with a line for each trial; `whole` wraps long texts instead of cutting them."""
    from rich.markup import escape
    from rich.table import Table
    from rich.text import Text

    shown = axes(sweep)
    table = Table(box=None, pad_edge=False, expand=not whole)
    table.add_column("trial", no_wrap=True)
    table.add_column("state", no_wrap=True)
    table.add_column("parameters", no_wrap=not whole, overflow="fold" if whole else "ellipsis", ratio=1 - whole or None)
    for title in (sweep.metric_name, "best", "epoch", "time"):
        table.add_column(escape(title), justify="right", no_wrap=True)
    for trial in trials:
        state = trial.status.value if trial.status != TrialStatus.FAILED else f"failed: {trial.error or 'no reason'}"
        cells = (
            trial.name + (f" = {trial.repeats}" if trial.repeats else ""),
            cut(state, 28),
            _list_parameters(trial, shown),
            number(trial.rounds[-1].value) if trial.rounds else "",
            number(trial.value(sweep.goal)) if trial.rounds else "",
            f"{trial.epochs}/{sweep.epochs}",
            format_duration(_spent(trial, now)) if trial.started is not None else "",
        )
        style = "bold green" if trial in winners else _STYLES.get(trial.status)
        table.add_row(*(Text(cell) for cell in cells), style=style)
    return table


def headline(sweep: Sweep, now: float) -> str:
    """Return the progress of a sweep in one line."""
    failed, left = sweep.count_trials(TrialStatus.FAILED), estimate_time_left(sweep, now)
    parts = [
        f"{sum(trial.status.is_final for trial in sweep.trials)} of {format_count(count_expected(sweep), 'trial')}",
        f"{failed} failed" if failed else "",
        format_duration(now),
        f"about {format_duration(left)} left" if left is not None else "",
    ]
    return ", ".join(filter(None, parts))


def count_expected(sweep: Sweep) -> int:
    """Return the number of all trials, repeats with other seeds included."""
    repeats = min(sweep.top, sweep.wanted) * max(0, sweep.seeds - 1)
    return max(sweep.wanted + repeats, len(sweep.trials))


def estimate_time_left(sweep: Sweep, now: float) -> float | None:
    """Return the estimated seconds to the end, at most those of the time budget, or None if nothing is known.

    The mean time of ended trials, or before the first end that of running epochs, is taken for each trial to come.
    """
    ended = [trial for trial in sweep.trials if trial.status in (TrialStatus.DONE, TrialStatus.STOPPED)]
    running = [trial for trial in sweep.trials if trial.status == TrialStatus.RUNNING]
    limits = [] if sweep.time_budget is None else [max(0.0, sweep.time_budget - now)]
    rates = [trial.rounds[-1].seconds / trial.epochs for trial in running if trial.rounds]
    if ended:
        each = math.fsum(trial.seconds for trial in ended) / len(ended)
    elif rates:
        each = sweep.epochs * math.fsum(rates) / len(rates)
    else:
        return min(limits, default=None)
    to_come = count_expected(sweep) - len(ended) - len(running) - sweep.count_trials(TrialStatus.FAILED)
    rest = [max(0.0, each - _spent(trial, now)) for trial in running]
    work = each * max(0, to_come) + math.fsum(rest)
    longest = max(rest, default=0.0)  # trials cannot be split: the end waits for the slowest
    return min([max(work / max(1, sweep.concurrency), longest), *limits])


def _spent(trial: Trial, now: float) -> float:
    if trial.status != TrialStatus.RUNNING or trial.started is None:
        return trial.seconds
    return max(trial.seconds, now - trial.started)


def _describe_end(sweep: Sweep, trial: Trial, now: float) -> str:
    spent = format_duration(trial.seconds)
    text = f"{trial.name} {trial.status.value} after {trial.epochs} of {format_count(sweep.epochs, 'epoch')}, {spent}"
    if trial.status == TrialStatus.FAILED:
        text += f": {' '.join((trial.error or 'no reason was given').split())}"
    elif trial.rounds:
        text += f": {sweep.metric_name} {number(trial.value(sweep.goal))}"
    return "; ".join((text, *_best_so_far(sweep), headline(sweep, now)))


def _best_so_far(sweep: Sweep) -> list[str]:
    """Return one text about the best value, or none."""
    return [f"best so far {number(best.value(sweep.goal))} ({best.name})" for best in find_contenders(sweep)[:1]]


def _list_parameters(trial: Trial, shown: list[Axis]) -> str:
    return ", ".join(f"{axis.short} {axis.text_of(trial)}" for axis in shown if axis.name in trial.parameters)
