"""What the routes share: models, capacity, and the way of an image from bytes to what is said about it."""

import asyncio
import contextlib
import logging
import time
from collections.abc import AsyncIterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from enum import StrEnum

from serving.admission import Admission
from serving.batching import Answer, Seen
from serving.bundle import Bundle
from serving.errors import PneumoError
from serving.fleet import Fleet, Lane, network_threads
from serving.image import ImageError
from serving.metrics import Metrics
from serving.predictor import Input
from serving.problems import ProblemError
from serving.schemas import ServedPrediction
from serving.settings import Settings
from serving.uploads import Upload

DECODERS = 4
"""Images decoded at once at most: a full-size film takes 60 MB meanwhile."""

_log = logging.getLogger("pneumo.service")


class State(StrEnum):
    """Whether the service takes requests."""

    LOADING = "loading"
    READY = "ready"
    DRAINING = "draining"
    FAILED = "failed"


class Service:
    """One process of the service.

    Attributes:
        settings: How it was set up.
        metrics: What is counted.
        fleet: The models.
        admission: Who may come in.
        state: Whether it takes requests.
        error: Why it failed, where it did.
    """

    def __init__(self, settings: Settings, bundle: Bundle | None = None) -> None:
        """Load nothing yet; `running` does.

        Args:
            settings: How to serve.
            bundle: The champion, where it is open already.
        """
        self.settings = settings
        self.metrics = Metrics()
        self.admission = Admission(
            max_wait_s=settings.max_wait_s, max_held=settings.max_pending_bytes, shed=self.metrics.shed
        )
        self.fleet = Fleet(settings, self.metrics, self.admission.answered)
        self.state = State.LOADING
        self.error: Exception | None = None
        self._bundle = bundle
        self._decoders = ThreadPoolExecutor(
            min(DECODERS, network_threads(settings.workers)), thread_name_prefix="decode"
        )
        self._comparing: set[asyncio.Task[None]] = set()

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Load in the background and follow the registry until the end."""
        follow = asyncio.create_task(self._follow())
        try:
            yield
        finally:
            self.state = State.DRAINING
            follow.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await follow
            for task in self._comparing:
                task.cancel()
            self._decoders.shutdown(cancel_futures=True)
            self.fleet.close()

    async def ready(self) -> None:
        """Wait until models are loaded.

        Raises:
            Exception: They cannot be.
        """
        while self.state is State.LOADING:
            await asyncio.sleep(0.01)
        if self.error:
            raise self.error

    def lane(self, request_id: str) -> Lane:
        """The model that shall answer a request.

        Raises:
            ProblemError: None is loaded yet, or any more.
        """
        lane = self.fleet.pick(request_id)
        if lane is None:
            raise ProblemError(
                "not-ready", f"the service is {self.state}; /readyz says when it is ready", retry_after=1
            )
        return lane

    async def predict(self, lane: Lane, uploads: Sequence[Upload]) -> list[ServedPrediction | ImageError]:
        """Predict images, in their order; one that cannot be read gives its error.

        Raises:
            ProblemError: Over capacity, or it took longer than the settings allow.
        """
        with self.admission.work(len(uploads)), lane.in_use():
            self.metrics.queued(self.admission.images)
            try:
                async with asyncio.timeout(self.settings.timeout_s):
                    found = await asyncio.gather(*(self._one(lane, upload) for upload in uploads))
            except TimeoutError:
                self.metrics.shed("timeout")
                detail = f"not answered within {self.settings.timeout_s:g} s; send fewer images, or try again later"
                raise ProblemError("over-capacity", detail, retry_after=5) from None
        self.metrics.queued(self.admission.images)
        answers: list[ServedPrediction | ImageError] = []
        for index, (upload, result) in enumerate(zip(uploads, found, strict=True)):
            if isinstance(result, ImageError):
                self.metrics.refused_image(result.reason)
                answers.append(result)
            else:
                seen, decoding_ms = result
                answers.append(ServedPrediction.of(seen.prediction, index, upload.filename, decoding_ms))
        self.metrics.predicted(lane.name, [answer for answer in answers if isinstance(answer, ServedPrediction)])
        return answers

    async def _one(self, lane: Lane, upload: Upload) -> tuple[Seen, float] | ImageError:
        answer, shadow = Answer(), self.fleet.shadow
        unseen = _Unseen(shadow) if shadow else None
        took = 0.0

        def decode() -> None:
            nonlocal took
            if answer.gone:
                return
            began = time.perf_counter()
            try:
                image = lane.predictor.prepare(upload.data, max_pixels=self.settings.max_pixels)
                took = time.perf_counter() - began
                lane.batcher.put(image, answer)
                if unseen:
                    unseen.show(image, lane, upload.data, self.settings.max_pixels)
            except Exception as error:
                answer.fail(error)

        self._decoders.submit(decode)
        try:
            seen = await answer.wait()
        except ImageError as error:
            return error
        self.metrics.decoded(took)
        self.metrics.waited(seen.waited_s)
        if unseen:
            task = asyncio.create_task(self._compare(seen, unseen))
            self._comparing.add(task)
            task.add_done_callback(self._comparing.discard)
        return seen, took * 1000

    async def _compare(self, seen: Seen, unseen: "_Unseen") -> None:
        try:
            other = await unseen.answer.wait()
        except Exception:  # it was behind, or broke: nobody but the metrics waits for it
            self.metrics.failed("shadow")
            return
        self.metrics.predicted("shadow", [other.prediction])
        self.metrics.compared(seen.prediction, other.prediction)

    async def _follow(self) -> None:
        """Load the models, then look after the registry every few seconds."""
        try:
            await asyncio.to_thread(self.fleet.load, self._bundle)
        except PneumoError as error:
            self.error, self.state = error, State.FAILED
            _log.error("not ready: %s", error)
            return
        if self.state is State.LOADING:
            self.state = State.READY
        while self.settings.reload_s:
            await asyncio.sleep(self.settings.reload_s)
            await asyncio.to_thread(self.fleet.refresh)


class _Unseen:
    """What a shadow makes of an image that another model answers."""

    def __init__(self, shadow: Lane) -> None:
        self.answer = Answer()
        self._shadow = shadow

    def show(self, image: Input, lane: Lane, data: bytes, max_pixels: int) -> None:
        """Give it the image, unless it is behind: it must not slow down who answers."""
        try:
            if self._shadow.bundle.info.preparation != lane.bundle.info.preparation:
                image = self._shadow.predictor.prepare(data, max_pixels=max_pixels)
            if self._shadow.retired or not self._shadow.batcher.put(image, self.answer, wait=False):
                raise TimeoutError
        except Exception as error:
            self.answer.fail(error)
