"""The service behind the routes: model slots, load shedding, and the path of an image from bytes to a prediction."""

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
from pneumo.serving.contracts.schemas import ImagePrediction, ServedPrediction
from pneumo.serving.contracts.settings import Settings
from pneumo.serving.images.types import Picture
from pneumo.serving.inference.batching import Answer, BatchResult
from pneumo.serving.inference.decoding import DecodedImage, Upload, decode_image
from pneumo.serving.inference.explanation import Explanation, Method, draw_film, explain_image
from pneumo.serving.inference.load_shedding import LoadShedding
from pneumo.serving.inference.model_slots import ModelSlot, ModelSlots, count_network_threads
from pneumo.serving.model.bundle import Bundle
from pneumo.serving.telemetry import tracing
from pneumo.serving.telemetry.metrics import Metrics

if TYPE_CHECKING:  # SQLAlchemy takes a third of a second to import; only a service with a prediction log needs it
    from pneumo.serving.predictions.rows import LogRow
    from pneumo.serving.predictions.store import LogStore
    from pneumo.serving.predictions.writer import LogWriter

DECODERS = 4
"""Most images decoded at once: each full-size film takes 60 MB meanwhile."""

_log = logging.getLogger("pneumo.service")


class State(StrEnum):
    """The readiness of the service."""

    LOADING = "loading"
    READY = "ready"
    DRAINING = "draining"
    FAILED = "failed"


class DriftSchedule(Protocol):
    """Drift checks while the service runs (`pneumo.serving.drift.schedule`)."""

    def close(self) -> None:
        """Stop, and abort a check under way."""


type OpenSchedule = Callable[[Settings, "LogStore", Metrics, Callable[[], Bundle | None]], DriftSchedule]
"""Starts drift checks of the current champion on the rows of a prediction log."""


class Service:
    """One process of the service.

    Attributes:
        slots: The loaded models.
        load_shedding: Refuses requests whose predicted wait is too long.
        tracer: Sends spans if an endpoint is set.
        store: The prediction log's database, or None without a log.
        log: Writes to the log while the service runs.
        schedule: Runs drift checks if the settings turn them on.
        error: The error that made the state `FAILED`.
    """

    def __init__(
        self, settings: Settings, bundle: Bundle | None = None, *, open_schedule: OpenSchedule | None = None
    ) -> None:
        """Set up without loading; `running` loads. `bundle` is the champion if it is open already.

        Raises:
            InputError: The log's address is invalid, or drift checks are on without a log.
            MachineError: The driver of the log's database is not installed.
        """
        self.settings = settings
        self.metrics = Metrics()
        self.tracer = tracing.from_environment()
        self._open_schedule = open_schedule if settings.checks_drift() else None
        self.store = _open_store(settings.log_url)
        self.log: LogWriter | None = None
        self.schedule: DriftSchedule | None = None
        self.load_shedding = LoadShedding(
            max_wait_s=settings.max_wait_s,
            max_body_bytes=settings.max_pending_bytes,
            shed=lambda reason: self.metrics.shed.series(reason).inc(),
        )
        self.slots = ModelSlots(settings, self.metrics, self.load_shedding.record_answers)
        self.state = State.LOADING
        self.error: PneumoError | None = None
        self._bundle = bundle
        cores = count_network_threads(settings.workers)
        self._one_core = cores == 1
        self._decoders = ThreadPoolExecutor(min(DECODERS, cores), thread_name_prefix="decode")
        self._comparisons: set[asyncio.Task[None]] = set()

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Load in the background and follow the registry until the end.

        With several workers, each takes no connection before it has loaded: another one can answer.
        """
        self._open_log()
        follow = asyncio.create_task(self._follow_registry())
        if self.settings.workers > 1:
            with contextlib.suppress(PneumoError):
                await self.wait_until_loaded()
        try:
            yield
        finally:
            self.state = State.DRAINING
            follow.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await follow
            for task in self._comparisons:
                task.cancel()
            self._decoders.shutdown(cancel_futures=True)
            self.slots.close()
            for closing in (self.schedule, self.log, self.tracer):
                if closing:
                    await asyncio.to_thread(closing.close)

    def _open_log(self) -> None:
        if self.store is None:
            return
        from pneumo.serving.predictions.spool import Spool
        from pneumo.serving.predictions.writer import LogWriter

        self.log = LogWriter(
            self.store,
            Spool(self.settings.log_spool),
            keep_days=self.settings.log_days,
            keep_rows=self.settings.log_rows,
            dropped=self.metrics.log_rows.series("lost").inc,
            written=self.metrics.log_rows.series("written").inc,
            away=self.metrics.log_away.set,
        )
        if self._open_schedule:
            self.schedule = self._open_schedule(self.settings, self.store, self.metrics, self.slots.get_champion_bundle)

    async def wait_until_loaded(self) -> None:
        """Wait until the models are loaded; raise the error if they cannot be."""
        while self.state is State.LOADING:
            await asyncio.sleep(0.01)
        if self.error:
            raise self.error

    def pick_slot(self, request_id: str) -> ModelSlot:
        """Return the model slot that answers a request; raise a `ProblemError` if no model is loaded."""
        slot = self.slots.pick(request_id)
        if slot is None:
            detail = f"the service is {self.state}; /readyz says when it is ready"
            raise ProblemError("not-ready", detail, retry_after=1)
        return slot

    async def predict(
        self, slot: ModelSlot, uploads: Sequence[Upload], request_id: str, site: str | None = None
    ) -> list[ServedPrediction | ImageError]:
        """Predict images in order; one that cannot be read gives its error. Over capacity raise a `ProblemError`."""
        work = sum(upload.work for upload in uploads)
        with self.load_shedding.admit_images(len(uploads), work), slot.in_use():
            self.metrics.queue.set(self.load_shedding.images)
            try:
                async with self.limit_time():
                    if len(uploads) == 1:  # saves a task and two turns of the event loop
                        results = [await self._predict_one(slot, uploads[0])]
                    else:
                        results = await asyncio.gather(*(self._predict_one(slot, upload) for upload in uploads))
            except ProblemError:
                raise
            except Exception:
                self.metrics.images.series(slot.name, "failed").inc(len(uploads))
                raise
        self.metrics.queue.set(self.load_shedding.images)
        answers: list[ServedPrediction | ImageError] = []
        served: list[ServedPrediction] = []
        for index, (upload, result) in enumerate(zip(uploads, results, strict=True)):
            if isinstance(result, ImageError):
                self.metrics.image_errors.series(result.reason).inc()
                answers.append(result)
                continue
            batched, decoded = result
            remarks = slot.predictor.list_remarks(decoded.picture)
            answer = ServedPrediction.from_prediction(
                batched.prediction, index, upload.filename, decoded.took_s * 1000, remarks
            )
            answers.append(answer)
            served.append(answer)
            if self.log:
                row = (answer, batched.embedding, decoded.picture, slot, request_id, site)
                self.log.put(partial(self._build_row, datetime.now(UTC), *row))
        self.metrics.count_predictions(slot.name, served)
        return answers

    def log_tensors(
        self,
        slot: ModelSlot,
        predictions: Sequence[ImagePrediction],
        embeddings: Float32,
        request_id: str,
        site: str | None = None,
    ) -> None:
        """Add a row to the prediction log for each image that its client prepared; `embeddings` is float32 [N, D]."""
        if self.log:
            for index, (prediction, embedding) in enumerate(zip(predictions, embeddings, strict=True)):
                row = (ServedPrediction.from_prediction(prediction, index, None, 0.0), embedding, None)
                self.log.put(partial(self._build_row, datetime.now(UTC), *row, slot, request_id, site))

    def _build_row(
        self,
        time: datetime,
        answer: ServedPrediction,
        embedding: Float32,
        picture: Picture | None,
        slot: ModelSlot,
        request_id: str,
        site: str | None,
    ) -> "LogRow":
        """Build a row of the prediction log, and count it by its site if sites are kept."""
        from pneumo.serving.predictions.rows import LogRow, Origin

        if source := self.settings.log_site:
            site = source.read_device(picture.device if picture else (), site)
            self.metrics.count_site(site, uncertain=answer.certainty == "uncertain")
        info = slot.bundle.info
        origin = Origin(time, request_id, answer.index, info.name, info.version, slot.name, site)
        return LogRow.from_prediction(answer, origin, picture, slot.predictor.project(embedding))

    async def explain(
        self, slot: ModelSlot, upload: Upload, class_name: str | None, method: Method | None = None
    ) -> Explanation:
        """Predict one image and compute its heat map; raise as `explain_image`, or a `ProblemError` over capacity."""
        explain = partial(
            explain_image,
            slot.predictor,
            upload.data,
            filename=upload.filename,
            class_name=class_name,
            method=method,
            max_pixels=self.settings.max_pixels,
        )
        return await self._run_in_decoder(slot, upload, explain)

    async def draw_film(self, slot: ModelSlot, upload: Upload) -> bytes:
        """Return one image as the model reads it; raise as `explanation.draw_film`, or a `ProblemError`."""
        preparation, max_pixels = slot.bundle.info.preparation, self.settings.max_pixels
        draw = partial(draw_film, upload.data, preparation, max_pixels=max_pixels)
        return await self._run_in_decoder(slot, upload, draw)

    async def _run_in_decoder[T](self, slot: ModelSlot, upload: Upload, work: Callable[[], T]) -> T:
        with self.load_shedding.admit_images(1, upload.work), slot.in_use():
            async with self.limit_time():
                return await asyncio.get_running_loop().run_in_executor(self._decoders, work)

    @contextlib.asynccontextmanager
    async def limit_time(self) -> AsyncIterator[None]:
        """Cancel the block after the timeout of the settings, and raise a `ProblemError`."""
        try:
            async with asyncio.timeout(self.settings.timeout_s):
                yield
        except TimeoutError:
            self.metrics.shed.series("timeout").inc()
            detail = f"not answered within {self.settings.timeout_s:g} s; send fewer images, or try again later"
            raise ProblemError("over-capacity", detail, retry_after=5) from None

    async def _predict_one(self, slot: ModelSlot, upload: Upload) -> tuple[BatchResult, DecodedImage] | ImageError:
        answer = Answer(upload.work)
        decoded: DecodedImage | None = None

        def decode() -> Float32:
            nonlocal decoded
            preparation = slot.bundle.info.preparation
            decoded = decode_image(upload.data, preparation, max_pixels=self.settings.max_pixels)
            return decoded.image

        def decode_and_put() -> None:
            if answer.gone:
                return
            try:
                slot.batcher.put(decode(), answer)
            except Exception as error:
                answer.fail(error)

        if self._one_core:
            slot.batcher.put_undecoded(decode, answer)
        else:
            self._decoders.submit(decode_and_put)
        try:
            batched = await answer.wait()
        except ImageError as error:
            return error
        assert decoded is not None
        self._record_times(batched, decoded, len(upload.data))
        if shadow := self.slots.shadow:
            task = asyncio.create_task(self._run_shadow(shadow, slot, upload, decoded.image, batched.prediction))
            self._comparisons.add(task)
            task.add_done_callback(self._comparisons.discard)
        return batched, decoded

    def _record_times(self, batched: BatchResult, decoded: DecodedImage, size: int) -> None:
        self.metrics.decoding.observe(decoded.took_s)
        self.metrics.waits.observe(batched.waited_s)
        self.tracer.record("decode", decoded.began, decoded.began + decoded.took_s, bytes=size)
        self.tracer.record("queue", batched.began - batched.waited_s, batched.began)
        self.tracer.record("inference", batched.began, batched.began + batched.ran_s, batch_size=batched.batch)

    async def _run_shadow(
        self, shadow: ModelSlot, slot: ModelSlot, upload: Upload, image: Float32, answered: ImagePrediction
    ) -> None:
        """Run the shadow on an answered image and compare; a shadow that breaks or falls behind harms no request."""
        try:
            if shadow.bundle.info.preparation != slot.bundle.info.preparation:
                prepare = partial(shadow.predictor.prepare, upload.data, max_pixels=self.settings.max_pixels)
                image = await asyncio.get_running_loop().run_in_executor(self._decoders, prepare)
            answer = Answer()
            if shadow.retired or not shadow.batcher.put(image, answer, wait=False):
                raise TimeoutError
            prediction = (await answer.wait()).prediction
        except Exception:  # only the metrics show it
            self.metrics.images.series("shadow", "failed").inc()
            return
        self.metrics.count_predictions("shadow", [prediction])
        self.metrics.compare_shadow(answered, prediction)

    async def _follow_registry(self) -> None:
        """Load the models, then check the registry every few seconds."""
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


def _open_store(url: str | None) -> "LogStore | None":
    if url is None:
        return None
    from pneumo.serving.predictions.store import LogStore

    return LogStore(url)
