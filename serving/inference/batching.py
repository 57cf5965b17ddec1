"""Micro-batches: what waits while the network runs goes through it together; alone, an image does not wait at all."""

import asyncio
import queue
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from pneumo.serving.contracts.arrays import Float32
from pneumo.serving.contracts.schemas import ImagePrediction
from pneumo.serving.model.predictor import BATCH, Predictor

WAITING = 4 * BATCH
"""Decoded images that wait for the network at most; decoding pauses beyond, since they take more memory than files."""

Decode = Callable[[], Float32]
"""Makes a prepared image, float32 [C, H, W], out of a file."""


@dataclass(frozen=True)
class BatchResult:
    """Prediction and embedding of one image, and how long its batch took.

    Attributes:
        prediction: What is said about it.
        embedding: float32 [D].
        began: When its batch went into the network, as `time.perf_counter()`.
        waited_s: Seconds from when it was given to the batcher to then; decoding counts where the batcher does it.
        ran_s: Seconds that its batch spent there.
        batch: Images in that batch.
    """

    prediction: ImagePrediction
    embedding: Float32
    began: float
    waited_s: float
    ran_s: float
    batch: int


@dataclass(frozen=True, slots=True)
class _Waiting:
    image: Float32 | Decode
    answer: "Answer"
    since: float


@dataclass(frozen=True, slots=True)
class _Decoded:
    image: Float32
    answer: "Answer"
    since: float


class Answer:
    """Takes what becomes of an image from another thread to the event loop that waits for it."""

    __slots__ = ("_future", "_loop", "gone")

    def __init__(self) -> None:
        """For the event loop that runs."""
        self._loop = asyncio.get_running_loop()
        self._future: asyncio.Future[BatchResult] = self._loop.create_future()
        self.gone = False
        """Whether nobody waits for it any more."""

    async def wait(self) -> BatchResult:
        """The answer, once there is one.

        Raises:
            Exception: What went wrong on the way.
        """
        try:
            return await self._future
        finally:
            self.gone = True

    def fail(self, error: Exception) -> None:
        """Say from any thread that there will be none."""
        _hand_over(self._loop, [(self, error)])

    def _set(self, result: BatchResult | Exception) -> None:
        if self._future.done():
            return
        if isinstance(result, Exception):
            self._future.set_exception(result)
            self._future.exception()  # where nobody waits any more, asyncio need not complain
        else:
            self._future.set_result(result)


def _hand_over(loop: asyncio.AbstractEventLoop, results: Sequence[tuple[Answer, BatchResult | Exception]]) -> None:
    def hand() -> None:
        for answer, result in results:
            answer._set(result)

    try:
        loop.call_soon_threadsafe(hand)
    except RuntimeError:  # the loop is closed: the service stopped, and nobody waits
        return


class Batcher:
    """One thread that runs a predictor on whatever waits, at most `BATCH` images at once.

    No timer: the first image of an idle service runs alone and at once, and meanwhile the next batch gathers.
    """

    def __init__(self, predictor: Predictor, batched: Callable[[int, float], object] | None = None) -> None:
        """Start the thread.

        Args:
            predictor: What to run.
            batched: Told of each batch, from the thread: images and seconds in the network.
        """
        self.predictor = predictor
        self._batched = batched
        self._waiting: queue.SimpleQueue[_Waiting | None] = queue.SimpleQueue()
        self._room = threading.Semaphore(WAITING)
        self._thread = threading.Thread(target=self._work, name="network", daemon=True)
        self._thread.start()

    @property
    def waiting(self) -> int:
        """Images that wait for the network."""
        return self._waiting.qsize()

    def put(self, image: Float32, answer: Answer, *, wait: bool = True) -> bool:
        """Give a prepared image, float32 [C, H, W], to the network; call it off the event loop.

        Args:
            image: The image.
            answer: Gets what comes of it.
            wait: Whether to wait where `WAITING` others do.

        Returns:
            Whether it was taken.
        """
        if not self._room.acquire(blocking=wait):
            return False
        self._waiting.put(_Waiting(image, answer, time.perf_counter()))
        return True

    def put_undecoded(self, decode: Decode, answer: Answer) -> None:
        """Give an image to the network that its thread decodes just before; never waits.

        Where a process has one core, other threads that decode only take it from the network and from each other.

        Args:
            decode: Makes the image.
            answer: Gets what comes of it, also where `decode` raises.
        """
        self._waiting.put(_Waiting(decode, answer, time.perf_counter()))

    def close(self) -> None:
        """End the thread once it has done what waits; call it off the event loop."""
        self._waiting.put(None)
        self._thread.join()

    def _work(self) -> None:
        ends = False
        while not ends:
            found = [self._take()]
            while len(found) < BATCH:
                try:
                    found.append(self._take(wait=False))
                except queue.Empty:
                    break
            ends = None in found
            batch = [image for each in found if each and not each.answer.gone and (image := _decoded(each))]
            if batch:
                self._run(batch)

    def _take(self, *, wait: bool = True) -> _Waiting | None:
        found = self._waiting.get(block=wait)
        if found and not callable(found.image):
            self._room.release()
        return found

    def _run(self, batch: list[_Decoded]) -> None:
        began = time.perf_counter()
        results: list[BatchResult | Exception]
        try:
            outputs = self.predictor.run(np.stack([each.image for each in batch]))
            took = time.perf_counter() - began
            said = self.predictor.interpret_outputs(outputs, elapsed_ms=took * 1000 / len(batch))
            results = [
                BatchResult(prediction, embedding, began, began - each.since, took, len(batch))
                for each, prediction, embedding in zip(batch, said, outputs.embedding, strict=True)
            ]
        except Exception as error:
            results = [error] * len(batch)
        else:
            if self._batched:
                self._batched(len(batch), took)
        by_loop: dict[asyncio.AbstractEventLoop, list[tuple[Answer, BatchResult | Exception]]] = {}
        for each, result in zip(batch, results, strict=True):
            by_loop.setdefault(each.answer._loop, []).append((each.answer, result))
        for loop, answers in by_loop.items():
            _hand_over(loop, answers)


def _decoded(waiting: _Waiting) -> _Decoded | None:
    """What the network takes; None where there is none, and its answer says why."""
    image = waiting.image
    if callable(image):
        try:
            image = image()
        except Exception as error:
            waiting.answer.fail(error)
            return None
    return _Decoded(image, waiting.answer, waiting.since)
