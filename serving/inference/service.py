"""What the routes share: models, capacity, and the way of an image from bytes to what is said about it."""

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from enum import StrEnum
from functools import partial
from typing import TYPE_CHECKING, Protocol

from pneumo.serving.contracts.arrays import Float32
from pneumo.serving.contracts.errors import ImageError, PneumoError
from pneumo.serving.contracts.problems import ProblemError
from pneumo.serving.contracts.schemas import ServedPrediction
from pneumo.serving.contracts.settings import Settings
from pneumo.serving.images.descriptors import compute_descriptors
from pneumo.serving.images.types import Picture
from pneumo.serving.inference.batching import Answer, BatchResult
from pneumo.serving.inference.decoding import DecodedImage, Upload, decode_image
from pneumo.serving.inference.explanation import Explanation, Method, explain_image
from pneumo.serving.inference.load_shedding import LoadShedding
from pneumo.serving.inference.model_slots import ModelSlot, ModelSlots, count_network_threads
from pneumo.serving.model.bundle import Bundle
from pneumo.serving.telemetry import tracing
from pneumo.serving.telemetry.metrics import Metrics

if TYPE_CHECKING:  # SQLAlchemy takes a third of a second to import, for those who log
    from pneumo.serving.predictions.rows import LogRow
    from pneumo.serving.predictions.store import LogStore
    from pneumo.serving.predictions.writer import LogWriter

DECODERS = 4
"""Images decoded at once at most: a full-size film takes 60 MB meanwhile."""

_log = logging.getLogger("pneumo.service")


class State(StrEnum):
    """Whether the service takes requests."""

    LOADING = "loading"
    READY = "ready"
    DRAINING = "draining"
    FAILED = "failed"


class DriftSchedule(Protocol):
    """Makes drift checks while the service runs (see `pneumo.serving.drift.schedule`)."""

    def close(self) -> None:
        """End, and end a check that is being made."""


class OpenSchedule(Protocol):
    """Starts a schedule of drift checks."""

    def __call__(
        self, settings: Settings, store: "LogStore", metrics: Metrics, champion: Callable[[], Bundle | None]
    ) -> DriftSchedule:
        """Start checks of what `champion` returns, from the prediction log `store`, as `settings` ask for them."""


class Service:
    """One process of the service.

    Attributes:
        settings: How it was set up.
        metrics: What is counted.
        slots: The loaded models.
        load_shedding: Refuses what would wait too long.
        tracer: Sends spans, where an endpoint is set.
        store: The prediction log's database; None where none is kept.
        log: Writes to it, while the service runs.
        schedule: Makes drift checks, where it shall.
        state: Whether it takes requests.
        error: Why it failed, where it did.
    """

    def __init__(
        self, settings: Settings, bundle: Bundle | None = None, *, open_schedule: OpenSchedule | None = None
    ) -> None:
        """Load nothing yet; `running` does.

        Args:
            settings: How to serve.
            bundle: The champion, where it is open already.
            open_schedule: Starts drift checks, if the settings ask for any; without it none are made.

        Raises:
            InputError: The log's address is wrong, or drift shall be judged from a log that is not kept.
            MachineError: Its driver is not installed.
        """
        self.settings = settings
        self.metrics = Metrics()
        self.tracer = tracing.from_environment()
        self._start_schedule = open_schedule if settings.checks_drift() else None
        self.store = _store(settings.log_url)
        self.log: LogWriter | None = None
        self.schedule: DriftSchedule | None = None
        self.load_shedding = LoadShedding(
            max_wait_s=settings.max_wait_s, max_body_bytes=settings.max_pending_bytes, shed=self.metrics.count_shed
        )
        self.slots = ModelSlots(settings, self.metrics, self.load_shedding.record_answers)
        self.state = State.LOADING
        self.error: Exception | None = None
        self._bundle = bundle
        cores = count_network_threads(settings.workers)
        self._one_core = cores == 1
        self._decoders = ThreadPoolExecutor(min(DECODERS, cores), thread_name_prefix="decode")
        self._comparing: set[asyncio.Task[None]] = set()

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Load in the background and follow the registry until the end.

        One of several workers takes no connection before it has loaded: another one can answer it.
        """
        self._open_log()
        self._open_schedule()
        follow = asyncio.create_task(self._follow())
        if self.settings.workers > 1:
            await self._loaded()
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
            self.slots.close()
            if self.schedule:
                await asyncio.to_thread(self.schedule.close)
            if self.log:
                await asyncio.to_thread(self.log.close)
            await asyncio.to_thread(self.tracer.close)

    def _open_log(self) -> None:
        if self.store is None:
            return
        from pneumo.serving.predictions.spool import Spool
        from pneumo.serving.predictions.writer import LogWriter

        settings = self.settings
        self.log = LogWriter(
            self.store,
            Spool(settings.log_spool),
            keep_days=settings.log_days,
            keep_rows=settings.log_rows,
            dropped=self.metrics.count_lost_rows,
            written=self.metrics.count_written_rows,
        )

    def _open_schedule(self) -> None:
        if self.store is None or self._start_schedule is None:
            return

        def champion() -> Bundle | None:
            slot = self.slots.champion
            return slot.bundle if slot else None

        self.schedule = self._start_schedule(self.settings, self.store, self.metrics, champion)

    async def ready(self) -> None:
        """Wait until models are loaded.

        Raises:
            Exception: They cannot be.
        """
        await self._loaded()
        if self.error:
            raise self.error

    async def _loaded(self) -> None:
        while self.state is State.LOADING:
            await asyncio.sleep(0.01)

    def pick_slot(self, request_id: str) -> ModelSlot:
        """The model that shall answer a request.

        Raises:
            ProblemError: None is loaded yet, or any more.
        """
        slot = self.slots.pick(request_id)
        if slot is None:
            raise ProblemError(
                "not-ready", f"the service is {self.state}; /readyz says when it is ready", retry_after=1
            )
        return slot

    async def predict(
        self, slot: ModelSlot, uploads: Sequence[Upload], request_id: str
    ) -> list[ServedPrediction | ImageError]:
        """Predict images, in their order; one that cannot be read gives its error.

        Raises:
            ProblemError: Over capacity, or it took longer than the settings allow.
        """
        with self.load_shedding.admit_images(len(uploads)), slot.in_use():
            self.metrics.set_queue(self.load_shedding.images)
            try:
                async with self.in_time():
                    if len(uploads) == 1:  # spares a task and two turns of the loop
                        found = [await self._one(slot, uploads[0])]
                    else:
                        found = await asyncio.gather(*(self._one(slot, upload) for upload in uploads))
            except ProblemError:
                raise
            except Exception:
                self.metrics.count_failures(slot.name, len(uploads))
                raise
        self.metrics.set_queue(self.load_shedding.images)
        answers: list[ServedPrediction | ImageError] = []
        for index, (upload, result) in enumerate(zip(uploads, found, strict=True)):
            if isinstance(result, ImageError):
                self.metrics.count_refused_image(result.reason)
                answers.append(result)
            else:
                seen, decoded = result
                answer = ServedPrediction.from_prediction(
                    seen.prediction, index, upload.filename, decoded.took_s * 1000, decoded.picture.remarks
                )
                answers.append(answer)
                if self.log:
                    self.log.put(partial(_row, datetime.now(UTC), answer, seen, decoded.picture, slot, request_id))
        self.metrics.count_predictions(
            slot.name, [answer for answer in answers if isinstance(answer, ServedPrediction)]
        )
        return answers

    async def explain(
        self, slot: ModelSlot, upload: Upload, class_name: str | None, method: Method | None = None
    ) -> Explanation:
        """Predict one image and say where the evidence lies.

        Raises:
            ProblemError: Over capacity, or it took longer than the settings allow.
            UnknownClassError: The model has no such class.
            NoMapsError: The method was asked for and the model does not have it.
            ImageError: The bytes cannot become an image.
        """
        work = partial(
            explain_image,
            slot.predictor,
            upload.data,
            filename=upload.filename,
            class_name=class_name,
            method=method,
            max_pixels=self.settings.max_pixels,
        )
        with self.load_shedding.admit_images(1), slot.in_use():
            async with self.in_time():
                return await asyncio.get_running_loop().run_in_executor(self._decoders, work)

    @contextlib.asynccontextmanager
    async def in_time(self) -> AsyncIterator[None]:
        """Give what is done meanwhile up where it takes longer than the settings allow.

        Raises:
            ProblemError: It did.
        """
        try:
            async with asyncio.timeout(self.settings.timeout_s):
                yield
        except TimeoutError:
            self.metrics.count_shed("timeout")
            detail = f"not answered within {self.settings.timeout_s:g} s; send fewer images, or try again later"
            raise ProblemError("over-capacity", detail, retry_after=5) from None

    async def _one(self, slot: ModelSlot, upload: Upload) -> tuple[BatchResult, DecodedImage] | ImageError:
        answer, shadow = Answer(), self.slots.shadow
        unseen = _Unseen(shadow) if shadow else None
        decoded: DecodedImage | None = None

        def make() -> Float32:
            nonlocal decoded
            decoded = decode_image(
                upload.data,
                slot.bundle.info.preparation,
                max_pixels=self.settings.max_pixels,
            )
            return decoded.image

        def show(image: Float32) -> Float32:
            if unseen:
                unseen.show(image, slot, upload.data, self.settings.max_pixels)
            return image

        def work() -> None:
            if answer.gone:
                return
            try:
                image = make()
                slot.batcher.put(image, answer)
                show(image)
            except Exception as error:
                answer.fail(error)

        if self._one_core:
            slot.batcher.put_undecoded(lambda: show(make()), answer)
        else:
            self._decoders.submit(work)
        try:
            seen = await answer.wait()
        except ImageError as error:
            return error
        assert decoded is not None
        self._tell(seen, decoded, len(upload.data))
        if unseen:
            task = asyncio.create_task(self._compare(seen, unseen))
            self._comparing.add(task)
            task.add_done_callback(self._comparing.discard)
        return seen, decoded

    def _tell(self, seen: BatchResult, decoded: DecodedImage, size: int) -> None:
        self.metrics.observe_decoding(decoded.took_s)
        self.metrics.observe_wait(seen.waited_s)
        ran = seen.began + seen.ran_s
        self.tracer.record("decode", decoded.began, decoded.began + decoded.took_s, bytes=size)
        self.tracer.record("queue", seen.began - seen.waited_s, seen.began)
        self.tracer.record("inference", seen.began, ran, batch_size=seen.batch)

    async def _compare(self, seen: BatchResult, unseen: "_Unseen") -> None:
        try:
            other = await unseen.answer.wait()
        except Exception:  # it was behind, or broke: nobody but the metrics waits for it
            self.metrics.count_failures("shadow")
            return
        self.metrics.count_predictions("shadow", [other.prediction])
        self.metrics.compare_shadow(seen.prediction, other.prediction)

    async def _follow(self) -> None:
        """Load the models, then look after the registry every few seconds."""
        try:
            await asyncio.to_thread(self.slots.load, self._bundle)
        except PneumoError as error:
            self.error, self.state = error, State.FAILED
            _log.error("not ready: %s", error)
            return
        if self.state is State.LOADING:
            self.state = State.READY
        while self.settings.reload_s:
            await asyncio.sleep(self.settings.reload_s)
            await asyncio.to_thread(self.slots.refresh)


def _store(url: str | None) -> "LogStore | None":
    if url is None:
        return None
    from pneumo.serving.predictions.store import LogStore

    return LogStore(url)


def _row(
    time: datetime, answer: ServedPrediction, seen: BatchResult, picture: Picture, slot: ModelSlot, request_id: str
) -> "LogRow":
    from pneumo.serving.predictions.rows import LogRow

    return LogRow.from_prediction(
        answer,
        time=time,
        request_id=request_id,
        image_index=answer.index,
        model=slot.bundle.info.name,
        version=slot.bundle.info.version,
        lane=slot.name,
        file_format=picture.format,
        descriptors=compute_descriptors(picture, picture.gray),
        embedding=slot.predictor.project(seen.embedding),
    )


class _Unseen:
    """What a shadow makes of an image that another model answers."""

    def __init__(self, shadow: ModelSlot) -> None:
        self.answer = Answer()
        self._shadow = shadow

    def show(self, image: Float32, slot: ModelSlot, data: bytes, max_pixels: int) -> None:
        """Give it the image, unless it is behind: it must not slow down who answers."""
        try:
            if self._shadow.bundle.info.preparation != slot.bundle.info.preparation:
                image = self._shadow.predictor.prepare(data, max_pixels=max_pixels)
            if self._shadow.retired or not self._shadow.batcher.put(image, self.answer, wait=False):
                raise TimeoutError
        except Exception as error:
            self.answer.fail(error)
