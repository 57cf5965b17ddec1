"""ONNX Runtime's threads, workers and 8-bit integers: images a second and latencies, as ratios measured in one run.

EfficientNet-Lite0 with random weights runs on noise, as exported and quantised, in one process or in two at once, on
one thread a process or on two, that wait asleep or spinning, for batches of 1 and 8. Every combination has its turn in
each round and the tables have medians over rounds, so that a busy machine hits them alike. Processor time is that of
all processes together; unlike the time on the wall it hardly depends on neighbours.

With `--openvino` (`pip install openvino`) OpenVINO runs the float graph beside them, in float32 as ONNX Runtime does.

What follows: a service gives each of its workers cores / workers threads, and lets them sleep while they wait.
"""

import argparse
import contextlib
import itertools
import multiprocessing
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import NamedTuple

import numpy as np

from pneumo.pipeline.export.bundle_export import write_graph
from pneumo.pipeline.export.int8 import graph as graphs
from pneumo.serving.contracts.cores import available_cores, integers_overflow
from pneumo.serving.images.preparation import Preparation
from pneumo.serving.images.types import Fit

GRAPHS = ("float", "int8")
WORKERS = (1, 2)
THREADS = ((1, False), (2, False), (2, True))
"""How many, and whether they spin while they wait; one alone never waits."""
BATCHES = (1, 8)
CALIBRATION_IMAGES = 16


class Setting(NamedTuple):
    """A session that each worker holds."""

    graph: str
    threads: int
    spinning: bool
    openvino: bool = False


class Turn(NamedTuple):
    """Work that all workers do at the same time."""

    setting: Setting
    workers: int
    batch: int


@dataclass(frozen=True)
class Measured:
    """One turn: images a second of all workers, seconds of each batch, processor milliseconds an image."""

    rate: float
    latencies: list[float]
    processor_ms: float


def settings(openvino: bool) -> list[Setting]:
    """All that there are."""
    found = [Setting(graph, threads, spinning) for graph in GRAPHS for threads, spinning in THREADS]
    return [*found, *(Setting("float", threads, False, True) for threads in (1, 2) if openvino)]


def write_graphs(folder: Path, size: int) -> None:
    """Write `float.onnx` and `int8.onnx`."""
    import timm
    import torch

    class Network(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.backbone = timm.create_model("tf_efficientnet_lite0", pretrained=False, num_classes=0)
            self.head = torch.nn.Linear(1280, 2)

        def forward(self, image: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            embedding = self.backbone(((image - 0.5) / 0.5).expand(-1, 3, -1, -1))
            return self.head(embedding), embedding

    preparation = Preparation(size=size, fit=Fit.SQUASH, height=size, width=size, channels=1)
    with contextlib.redirect_stdout(None):  # torch tells of its progress
        write_graph(Network().eval(), preparation, folder / "float.onnx")
    model = graphs.fold_batch_norms((folder / "float.onnx").read_bytes())
    noise = np.random.default_rng(0).integers(0, 256, (CALIBRATION_IMAGES, size, size, 1)).astype(np.uint8)
    ranges = graphs.calibrate_ranges(model, list(noise))
    (folder / "int8.onnx").write_bytes(graphs.quantize_graph(model, ranges, graphs.list_convolutions(model)))


def session(setting: Setting, folder: Path) -> Callable[[np.ndarray], object]:
    """Return the session that runs a batch."""
    path = str(folder / f"{setting.graph}.onnx")
    if setting.openvino:
        import openvino

        wanted = {
            "INFERENCE_NUM_THREADS": setting.threads,
            "NUM_STREAMS": 1,
            "INFERENCE_PRECISION_HINT": "f32",
            "ENABLE_CPU_PINNING": False,
        }
        request = openvino.Core().compile_model(path, "CPU", wanted).create_infer_request()
        return lambda images: request.infer({"image": images})
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = setting.threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    options.add_session_config_entry("session.intra_op.allow_spinning", str(int(setting.spinning)))
    if integers_overflow():
        options.add_session_config_entry("session.x64quantprecision", "1")
    loaded = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    return lambda images: loaded.run(["logits"], {"image": images})


def work(orders: Connection, folder: str, size: int, openvino: bool) -> None:
    """A worker: load every session, then do as told until told None."""
    noise = np.random.default_rng(1).random((max(BATCHES), 1, size, size), dtype=np.float32)
    sessions = {setting: session(setting, Path(folder)) for setting in settings(openvino)}
    for run, batch in itertools.product(sessions.values(), BATCHES):
        run(noise[:batch])
    orders.send(None)
    while (order := orders.recv()) is not None:
        setting, batch, seconds = order
        latencies, began, used = [], time.perf_counter(), time.process_time()
        while (now := time.perf_counter()) < began + seconds:
            sessions[setting](noise[:batch])
            latencies.append(time.perf_counter() - now)
        orders.send((latencies, time.perf_counter() - began, time.process_time() - used))


@contextlib.contextmanager
def workers(folder: Path, size: int, openvino: bool) -> Iterator[list[Connection]]:
    """As many as there are at most."""
    context = multiprocessing.get_context("spawn")
    ends = [context.Pipe() for _ in range(max(WORKERS))]
    processes = [
        context.Process(target=work, args=(theirs, str(folder), size, openvino), daemon=True) for _, theirs in ends
    ]
    for process in processes:
        process.start()
    for ours, _ in ends:
        ours.recv()
    yield [ours for ours, _ in ends]
    for ours, _ in ends:
        ours.send(None)
    for process in processes:
        process.join()


def take(turn: Turn, connections: list[Connection], seconds: float) -> Measured:
    """One turn."""
    busy = connections[: turn.workers]
    for connection in busy:
        connection.send((turn.setting, turn.batch, seconds))
    found = [connection.recv() for connection in busy]
    images = sum(len(latencies) for latencies, _, _ in found) * turn.batch
    return Measured(
        rate=sum(len(latencies) * turn.batch / elapsed for latencies, elapsed, _ in found),
        latencies=[each for latencies, _, _ in found for each in latencies],
        processor_ms=1000 * sum(used for _, _, used in found) / images,
    )


def show(turns: dict[Turn, list[Measured]]) -> None:
    """One table a graph and batch size; ratios are to one worker with one thread that sleeps."""
    rates = {turn: statistics.median(each.rate for each in found) for turn, found in turns.items()}
    spent = {turn: statistics.median(each.processor_ms for each in found) for turn, found in turns.items()}
    for graph, batch in itertools.product(GRAPHS, BATCHES):
        first = Turn(Setting(graph, 1, False), 1, batch)
        print(f"\n{graph}, batches of {batch}\n")
        print("| workers | threads each | waiting | images/s | ratio | p50, ms | p95, ms | processor ms an image |")
        print("| --- | --- | --- | --- | --- | --- | --- | --- |")
        for turn, found in turns.items():
            if (turn.setting.graph, turn.setting.openvino, turn.batch) != (graph, False, batch):
                continue
            waits = np.concatenate([each.latencies for each in found]) * 1000
            print(
                f"| {turn.workers} | {turn.setting.threads} | {'spinning' if turn.setting.spinning else 'asleep'} "
                f"| {rates[turn]:.0f} | {rates[turn] / rates[first]:.2f} | {np.median(waits):.1f} "
                f"| {np.quantile(waits, 0.95):.1f} | {spent[turn]:.2f} |"
            )
    compared = {"int8": Setting("int8", 1, False), "OpenVINO": Setting("float", 1, False, True)}
    for name, setting in compared.items():
        if not any(turn.setting == setting for turn in turns):
            continue
        print(f"\n{name} against float in ONNX Runtime, at the same workers, threads that sleep\n")
        print("| batch | workers | threads each | images/s, ratio | processor time, ratio |")
        print("| --- | --- | --- | --- | --- |")
        for batch, number, threads in itertools.product(BATCHES, WORKERS, (1, 2)):
            usual = Turn(Setting("float", threads, False), number, batch)
            other = Turn(setting._replace(threads=threads), number, batch)
            faster, cheaper = rates[other] / rates[usual], spent[usual] / spent[other]
            print(f"| {batch} | {number} | {threads} | {faster:.2f} | {cheaper:.2f} |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=128, help="Pixels a side of the network's input.")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=0.8, help="Of each turn.")
    parser.add_argument("--openvino", action="store_true", help="Measure OpenVINO too, where it is installed.")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_graphs(folder, options.size)
        turns: dict[Turn, list[Measured]] = {
            Turn(setting, number, batch): []
            for setting, number, batch in itertools.product(settings(options.openvino), WORKERS, BATCHES)
        }
        with workers(folder, options.size, options.openvino) as connections:
            for _ in range(options.rounds):
                for turn, found in turns.items():
                    found.append(take(turn, connections, options.seconds))
    print(f"{available_cores()} cores, {options.size} x {options.size} pixels, {options.rounds} rounds")
    show(turns)


if __name__ == "__main__":
    main()
