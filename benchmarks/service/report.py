"""Tables and aims, in markdown."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from service.figures import Figure, middle, ratio
from service.trials import BATCHES, CLIENTS, OVERLOAD, Alone, Cell, bare_name

MIB = 2**20

SHARES = {"224 x 224": (0.86, 0.83), "1500 x 1200": (0.90, 0.87)}
"""Least share of the bare limit by size: without the prediction log, and with it, as in the next two."""

DELAYS = (1.25, 1.3)
"""Most p50 of one client, as a multiple of the bare limit's."""

TIMES = (11, 10.5)
"""Least multiple of what `ludwig serve` answers, with small images."""

Cells = Mapping[Cell, Sequence[Figure]]


@dataclass(frozen=True)
class Aim:
    """Something to reach, and whether it was."""

    what: str
    measured: float
    unit: str
    least: float = -math.inf
    most: float = math.inf

    @property
    def met(self) -> bool:
        return self.least <= self.measured <= self.most

    @property
    def bound(self) -> str:
        return f"at least {self.least:g}{self.unit}" if self.least > -math.inf else f"at most {self.most:g}{self.unit}"


def table(cells: Cells, size: str) -> str:
    """All contenders with images of one size; the best batch of the bare limit is 1."""
    limit = best_bare(cells, size)
    head = "clients | images/s | of the bare limit | processor ms an image | p50, ms | p95 | p99 | failed | refused |"
    lines = [f"| {size} | {head}", "| --- " * 10 + "|"]
    for cell, turns in cells.items():
        if cell.size != size:
            continue
        figure = middle(turns)
        share = ratio([turn.rate for turn in turns], limit) if limit else math.nan
        clients = "-" if cell.who.startswith("bare") else str(cell.clients)
        lines.append(
            f"| {cell.who} | {clients} | {figure.rate:.1f} | {share:.2f} | {figure.processor_ms:.2f} "
            f"| {figure.p50:.2f} | {figure.p95:.2f} | {figure.p99:.2f} | {figure.failed} | {figure.shed} |"
        )
    return "\n".join(lines)


def best_bare(cells: Cells, size: str) -> list[float]:
    """Images a second of the bare limit in each turn, at its better batch."""
    batches = [cells[Cell(bare_name(batch, judge=False), size, batch)] for batch in BATCHES]
    return [max(figure.rate for figure in turn) for turn in zip(*batches, strict=True)]


def aims(
    cells: Cells, pneumos: Sequence[str], alone: Alone, ready: Mapping[str, float], max_wait_s: float
) -> list[Aim]:
    """Return the targets of the service, in the order of the table."""
    found = []
    for size, shares in SHARES.items():
        for name, share, delay, times in zip(pneumos, shares, DELAYS, TIMES, strict=True):
            at = f"{size}, {CLIENTS[1]} clients, {name}"
            ours = [figure.rate for figure in cells[Cell(name, size, CLIENTS[1])]]
            measured = ratio(ours, best_bare(cells, size))
            found.append(Aim(f"{at}: images/s of the bare limit", measured, "", least=share))
            ludwig = cells.get(Cell("ludwig serve", size, CLIENTS[1]))
            if ludwig and size == next(iter(SHARES)):  # decoding is most of the work on larger ones, for both
                measured = ratio(ours, [figure.rate for figure in ludwig])
                found.append(Aim(f"{at}: of `ludwig serve`", measured, "", least=times))
            mine = [figure.p50 for figure in cells[Cell(name, size, 1)]]
            theirs = [figure.p50 for figure in cells[Cell(bare_name(1, judge=False), size, 1)]]
            found.append(Aim(f"{size}, 1 client, {name}: p50 of the bare limit", ratio(mine, theirs), "", most=delay))
    found += [
        Aim(
            f"failed or refused, {CLIENTS[2]} clients for {alone.soak_s:g} s",
            alone.soak.failed + alone.soak.shed,
            "",
            most=0,
        ),
        Aim("p99 of accepted requests in overload", alone.overload_p99() / 1000, " s", most=round(max_wait_s * 1.2, 1)),
        Aim("failed in overload", alone.overload.failed, "", most=0),
        Aim("refused without Retry-After", alone.overload.shed_without_retry_after, "", most=0),
        *(Aim(f"ready, {cores}", seconds, " s", most=3) for cores, seconds in ready.items()),
        Aim("resident memory of a worker after all of it", alone.memory[0][0] / MIB, " MiB", most=200),
    ]
    return found


def show_aims(found: Iterable[Aim]) -> str:
    lines = ["| what | aim | measured | met |", "| --- | --- | --- | --- |"]
    lines += [
        f"| {aim.what} | {aim.bound} | {aim.measured:.3g}{aim.unit} | {'yes' if aim.met else 'no'} |" for aim in found
    ]
    return "\n".join(lines)


def show_alone(alone: Alone) -> str:
    """Soak and overload in sentences."""
    soak, over = alone.soak, alone.overload
    goodput = len(over.latencies) / over.seconds / alone.capacity
    now, most = alone.memory[0]
    return f"""\
- {CLIENTS[2]} clients for {alone.soak_s:g} s: {soak.rate:.0f} images/s, p50 {soak.p50:.0f} ms, p99 {soak.p99:.0f} ms,
  {soak.failed} failed, {soak.shed} refused.
- {over.sent} requests at {OVERLOAD:g} x {alone.capacity:.0f} a second: {over.shed / over.sent:.0%} refused,
  p99 of the others {alone.overload_p99():.0f} ms, {over.failed} failed, goodput {goodput:.2f} of capacity.
- Resident memory of the worker afterwards: {now / MIB:.0f} MiB, {most / MIB:.0f} at most.
- The load generator asked `/healthz` {alone.ceiling[0]:.0f} times a second with {alone.ceiling[1]:.0%} of its core; in
  overload it was at most {over.late_s * 1000:.0f} ms late and used {over.generator:.0%}."""


def shared_table(cells: Cells, memory: Mapping[str, Sequence[tuple[int, int]]], size: str) -> str:
    """Workers and threads in different proportions."""
    lines = [f"| {size} | clients | images/s | p50, ms | p95 | p99 | failed | MiB a worker |", "| --- " * 8 + "|"]
    for cell, turns in cells.items():
        if cell.size == size:
            figure = middle(turns)
            held = ", ".join(f"{now / MIB:.0f}" for now, _ in memory[cell.who])
            lines.append(
                f"| {cell.who} | {cell.clients} | {figure.rate:.1f} | {figure.p50:.2f} | {figure.p95:.2f} "
                f"| {figure.p99:.2f} | {figure.failed} | {held} |"
            )
    return "\n".join(lines)
