"""Measurements: every contender in turns, then pneumo alone under realistic load."""

import asyncio
import contextlib
import statistics
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from service import bare, contenders
from service.contenders import Contender, Server
from service.figures import Figure, percentiles
from service.load import Connection, Tally, Target, closed_loop, open_loop

CLIENTS = (1, 16, 100)
BATCHES = (1, 8)
WARM_UP = 40
OVERLOAD = 3.0
"""Arrivals in overload, as a multiple of what the server answered at 16 clients."""


@dataclass(frozen=True)
class Cell:
    """One cell of the table: who, images of which size, and how many clients at once (or images in a batch)."""

    who: str
    size: str
    clients: int


@dataclass(frozen=True)
class Plan:
    """Amount of work in one run of the benchmark.

    Attributes:
        seconds: Of each cell, over all turns.
        turns: Between which the contenders alternate.
        soak_s: Seconds at 100 clients.
        overload_s: Seconds of overload.
        starts: How often pneumo is started to time it.
    """

    seconds: float
    turns: int
    soak_s: float
    overload_s: float
    starts: int


@dataclass
class Files:
    """JPEG files of each size, and their bytes."""

    folders: Mapping[str, Path]
    images: Mapping[str, list[bytes]] = field(init=False)

    def __post_init__(self) -> None:
        self.images = {
            size: [path.read_bytes() for path in sorted(folder.iterdir())] for size, folder in self.folders.items()
        }


@dataclass(frozen=True)
class Alone:
    """Measurements of pneumo alone.

    Attributes:
        ceiling: Requests a second for `/healthz` at 16 clients, and the share of a core that the generator used for it.
        soak: At 100 clients.
        capacity: Images a second before the overload.
        overload: Of that: what came of it, with latencies of accepted requests.
        memory: Resident bytes of each worker once all of that was done, now and at most.
    """

    ceiling: tuple[float, float]
    soak: Figure
    soak_s: float
    capacity: float
    overload: Tally
    memory: list[tuple[int, int]]

    def overload_p99(self) -> float:
        return percentiles(self.overload.latencies)[2]


BARE, JUDGED = "bare limit", "bare limit with what the answer says"


def bare_name(batch: int, *, judge: bool) -> str:
    return f"{JUDGED if judge else BARE}, batch {batch}"


def grid(servers: Sequence[Server], limit: bare.Bare, files: Files, plan: Plan) -> dict[Cell, list[Figure]]:
    """Measure every contender with each size and number of clients, in turns; who is not measured is stopped."""
    cells: dict[Cell, list[Figure]] = {}
    each = plan.seconds / plan.turns
    for turn in range(plan.turns):
        for size, images in files.images.items():
            _tell(f"turn {turn + 1} of {plan.turns}, {size}")
            for batch in BATCHES:
                for judge in (False, True):
                    done = limit.run(bare.Task(str(files.folders[size]), batch, judge, each))
                    tally = Tally(done.seconds, done.latencies * batch, answered=done.images)
                    cell = Cell(bare_name(batch, judge=judge), size, batch)
                    cells.setdefault(cell, []).append(Figure.of(tally, done.processor_s))
            for clients in CLIENTS:
                for server in servers:
                    with server.awake():
                        figure, _ = measure(server, images, clients, each)
                    cells.setdefault(Cell(server.contender.name, size, clients), []).append(figure)
    return cells


def measure(server: Server, images: Sequence[bytes], clients: int, seconds: float) -> tuple[Figure, Tally]:
    """One closed loop, with the processor time that the server spent on it."""
    used = server.processor_s()
    tally = closed_loop(server.target, images, clients, seconds)
    return Figure.of(tally, server.processor_s() - used), tally


def warm_up(server: Server, files: Files) -> None:
    """Ask for all images a few times.

    Raises:
        RuntimeError: Something else than an answer came.
    """
    for images in files.images.values():
        tally = closed_loop(server.target, images, 8, WARM_UP / 20)
        if tally.failed or not tally.answered:
            raise RuntimeError(f"{server.contender.name} fails while it is warmed up: {_complaint(server, images[0])}")


def difference(server: Server, images: Sequence[bytes], expected: Sequence[float]) -> float:
    """The largest difference of a probability from the bare limit's: whether it is the same model."""

    async def ask() -> list[str]:
        connection = Connection(server.port)
        return [(await connection.ask(server.target.request(image))).body.decode() for image in images]

    found = [server.contender.probability(body) for body in asyncio.run(ask())]
    return max(abs(a - b) for a, b in zip(found, expected, strict=True))


def alone(server: Server, files: Files, plan: Plan) -> Alone:
    """Soak and overload, with images of the smallest size; what was held is asked for at the end."""
    small = next(iter(files.images.values()))
    with server.awake():
        ping = closed_loop(Target(server.port, "/healthz"), None, 16, min(2.0, plan.seconds))
        _tell(f"100 clients for {plan.soak_s:g} s")
        soak, _ = measure(server, small, 100, plan.soak_s)
        capacity = measure(server, small, 16, plan.seconds)[0].rate
        _tell(f"overload for {plan.overload_s:g} s")
        overload = open_loop(server.target, small, OVERLOAD * capacity, plan.overload_s)
        return Alone((ping.rate, ping.generator), soak, plan.soak_s, capacity, overload, server.memory())


def starts(contender: Contender, cores: set[int], count: int, folder: Path) -> float:
    """Median of the seconds from the start of the process to its first 200 from the ready route."""
    seconds = []
    for _ in range(count):
        with contenders.running(contender, cores, folder / "start.log") as server:
            seconds.append(server.started_s)
    return statistics.median(seconds)


def on_all_cores(
    bundle: Path, cores: set[int], files: Files, plan: Plan, folder: Path
) -> tuple[dict[Cell, list[Figure]], dict[str, list[tuple[int, int]]]]:
    """pneumo with workers and threads in different proportions; load generator and server share all cores."""
    shapes = dict.fromkeys([(1, 1), (1, len(cores)), (len(cores), 1)])
    cells: dict[Cell, list[Figure]] = {}
    memory: dict[str, list[tuple[int, int]]] = {}
    contenders.pin(cores)
    with contextlib.ExitStack() as stack:
        servers = []
        for workers, threads in shapes:
            contender = contenders.pneumo(bundle, folder, workers=workers, threads=threads)
            server = started(stack, contender, cores, files, folder)
            servers.append(server)
        for turn in range(plan.turns):
            _tell(f"all cores, turn {turn + 1} of {plan.turns}")
            for size, images in files.images.items():
                for clients in CLIENTS[:2]:
                    for server in servers:
                        with server.awake():
                            figure, _ = measure(server, images, clients, plan.seconds / plan.turns)
                        cells.setdefault(Cell(server.contender.name, size, clients), []).append(figure)
        for server in servers:
            memory[server.contender.name] = server.memory()
    return cells, memory


def started(stack: contextlib.ExitStack, contender: Contender, cores: set[int], files: Files, folder: Path) -> Server:
    """A contender that runs as long as the stack, warmed up, and stopped until it is woken.

    Raises:
        RuntimeError: It does not start, or answers with errors.
    """
    _tell(f"starting {contender.name}")
    server = stack.enter_context(contenders.running(contender, cores, folder / f"{contender.name}.log"))
    with server.awake():
        warm_up(server, files)
    return server


def _complaint(server: Server, image: bytes) -> str:
    reply = asyncio.run(Connection(server.port).ask(server.target.request(image)))
    return f"{reply.status} {reply.body[:300].decode(errors='replace')}"


def _tell(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
