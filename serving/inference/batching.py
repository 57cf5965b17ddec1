"""Micro-batches: images that wait while the network runs go through it together; a lone image does not wait."""

import asyncio
import queue
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from pneumo.serving.contracts.arrays import Float32
from pneumo.serving.contracts.schemas import ImagePrediction
from pneumo.serving.model.predictor import BATCH, Predictor

WAITING = 4 * BATCH
"""Most decoded images that wait for the network; then decoding pauses, since they take more memory than files."""

Decode = Callable[[], Float32]
"""Decodes a file to a prepared image, float32 [C, H, W]."""


@dataclass(frozen=True)
class BatchResult:
    """Prediction and embedding of one image, with the times of its batch.

    Attributes:
        prediction: The prediction.
        embedding: float32 [D].
        began: Start of its batch, as `time.perf_counter()`.
        waited_s: Seconds in the queue, including decoding if the batcher does it.
        ran_s: Seconds of its batch in the network.
        batch: Number of images in the batch.
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


class Answer:
    """Hands the result for an image from another thread to the event loop that waits for it."""

    __slots__ = ("_future", "_loop", "gone", "work")

    def __init__(self, work: float = 0.0) -> None:
        """Belong to the running event loop; `work` is what the image counts for in load shedding."""
        self.work = work
        self._loop = asyncio.get_running_loop()
        self._future: asyncio.Future[BatchResult] = self._loop.create_future()
        self.gone = False
        """Nobody waits for the result any more."""

    async def wait(self) -> BatchResult:
        """Wait for the result, or raise the error that prevented it."""
        try:
            return await self._future
        finally:
            self.gone = True

    def fail(self, error: Exception) -> None:
        """Set an error instead of a result, from any thread."""
        _deliver(self._loop, [(self, error)])

    def _set(self, result: BatchResult | Exception) -> None:
        if self._future.done():
            return
        if isinstance(result, Exception):
            self._future.set_exception(result)
            self._future.exception()  # marks it as read: asyncio must not complain if nobody waits
        else:
            self._future.set_result(result)


type _Result = tuple[Answer, BatchResult | Exception]


def _deliver(loop: asyncio.AbstractEventLoop, results: Sequence[_Result]) -> None:
    def deliver() -> None:
        for answer, result in results:
            answer._set(result)

    try:
        loop.call_soon_threadsafe(deliver)
    except RuntimeError:  # the loop is closed: the service stopped, and nobody waits
        return


class Batcher:
    """One thread that runs a predictor on the waiting images, at most `BATCH` at once.

    There is no timer: the first image of an idle service runs alone and at once, while the next batch gathers.
    """

    def __init__(self, predictor: Predictor, batched: Callable[[int, float, float], object] | None = None) -> None:
        """Start the thread; `batched` is called from it with images, seconds and work of each batch."""
        self.predictor = predictor
        self._batched = batched
        self._waiting: queue.SimpleQueue[_Waiting | None] = queue.SimpleQueue()
        self._room = threading.Semaphore(WAITING)
        self._thread = threading.Thread(target=self._work, name="network", daemon=True)
        self._thread.start()

    def put(self, image: Float32, answer: Answer, *, wait: bool = True) -> bool:
        """Queue a prepared image, float32 [C, H, W]; on the event loop only without `wait`.

        Args:
            image: The image.
            answer: Gets the result.
            wait: Wait for room if `WAITING` images wait already.

        Returns:
            False if there was no room.
        """
        if not self._room.acquire(blocking=wait):
            return False
        self._waiting.put(_Waiting(image, answer, time.perf_counter()))
        return True

    def put_undecoded(self, decode: Decode, answer: Answer) -> None:
        """Queue an image that the network's thread decodes just before its batch; never waits.

        If a process has one core, threads that decode only take it from the network and from each other.
        """
        self._waiting.put(_Waiting(decode, answer, time.perf_counter()))

    def close(self) -> None:
        """Process the waiting images, then end the thread; must not be called on the event loop."""
        self._waiting.put(None)
        self._thread.join()

    def _work(self) -> None:
        ended = False
        while not ended:
            taken = [self._take()]
            while len(taken) < BATCH:
                try:
                    taken.append(self._take(wait=False))
                except queue.Empty:
                    break
            ended = None in taken
            batch = [
                (each, image)
                for each in taken
                if each and not each.answer.gone and (image := _decode(each)) is not None
            ]
            if batch:
                self._run([each for each, _ in batch], [image for _, image in batch])

    def _take(self, *, wait: bool = True) -> _Waiting | None:
        taken = self._waiting.get(block=wait)
        if taken and not callable(taken.image):
            self._room.release()
        return taken

    def _run(self, batch: Sequence[_Waiting], images: Sequence[Float32]) -> None:
        began = time.perf_counter()
        results: list[BatchResult | Exception]
        try:
            outputs = self.predictor.run(np.stack(images))
            took = time.perf_counter() - began
            predictions = self.predictor.interpret_outputs(outputs, elapsed_ms=took * 1000 / len(batch))
            results = [
                BatchResult(prediction, embedding, began, began - each.since, took, len(batch))
                for each, prediction, embedding in zip(batch, predictions, outputs.embedding, strict=True)
            ]
        except Exception as error:
            results = [error] * len(batch)
        else:
            if self._batched:
                self._batched(len(batch), took, sum(each.answer.work for each in batch))
        by_loop: defaultdict[asyncio.AbstractEventLoop, list[_Result]] = defaultdict(list)
        for each, result in zip(batch, results, strict=True):
            by_loop[each.answer._loop].append((each.answer, result))
        for loop, answers in by_loop.items():
            _deliver(loop, answers)


def _decode(waiting: _Waiting) -> Float32 | None:
    """Return the prepared image; if it cannot be decoded, fail its answer and return None."""
    if not callable(waiting.image):
        return waiting.image
    try:
        return waiting.image()
    except Exception as error:
        waiting.answer.fail(error)
        return None
