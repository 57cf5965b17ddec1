"""Ask a running service from Python; needs `httpx` (extra `client`), and neither ONNX Runtime nor FastAPI.

with Client("http://127.0.0.1:8000", key="pneumo_...") as client:
    for prediction in client.predict("chest_xray/test"):
        print(prediction.filename, prediction.label, prediction.probability)
"""

import email.utils
import random
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Literal, Self, overload

import httpx
from pydantic import BaseModel, ValidationError

from pneumo.serving.contracts.errors import InputError, PneumoError
from pneumo.serving.contracts.schemas import (
    ImageProblem,
    PredictResponse,
    Problem,
    ServedPrediction,
    Status,
)
from pneumo.serving.contracts.settings import Settings
from pneumo.serving.http.archive import is_zip
from pneumo.serving.inference.offline import find_images
from pneumo.serving.model.bundle import BundleInfo

IMAGES = 16
"""Images in a request: enough to keep the network in batches, and half of what a service takes by default."""

BYTES = Settings.model_fields["max_bytes"].default * 9 // 10
"""Bytes of files in a request; a service that takes less says so, and the request is cut in two."""

CONCURRENCY = 4
"""Requests under way at once."""

LONGEST_WAIT_S = 60.0
"""A service that asks for more patience than this is not asked again."""

_BACKOFF_S, _BACKOFF_MOST_S = 0.25, 8.0
_POLL_S = 0.2
_BUSY = frozenset({429, 503})

Source = bytes | str | Path
"""The bytes of an image file, or the path of one, or of a folder."""


class ServiceError(PneumoError):
    """The service did not do what it was asked.

    Attributes:
        status: HTTP status, or None where there was no answer.
        type: The kind of problem, such as `urn:pneumo:problem:not-an-image`; `about:blank` for none in particular.
        title: The kind in words.
        detail: What was wrong and how to mend it.
        request_id: Under which the service's log tells of it, or None.
        filename: The file that is at fault, where one is.
        index: Its place among the images given, from 0.
    """

    def __init__(
        self,
        title: str,
        detail: str,
        *,
        status: int | None = None,
        type: str = "about:blank",
        request_id: str | None = None,
        filename: str | None = None,
        index: int | None = None,
    ) -> None:
        place = filename or (f"image {index}" if index is not None else "")
        shown = f"{status} {title}" if status else title
        super().__init__(": ".join(filter(None, (place, shown, detail))))
        self.status = status
        self.type = type
        self.title = title
        self.detail = detail
        self.request_id = request_id
        self.filename = filename
        self.index = index


@dataclass(frozen=True)
class _Image:
    """One image to send; its file is read when its turn comes.

    Attributes:
        index: Its place among those given.
        source: Its bytes, or its path.
        size: Bytes.
    """

    index: int
    source: bytes | Path
    size: int

    @property
    def filename(self) -> str | None:
        return None if isinstance(self.source, bytes) else str(self.source)

    def read(self) -> bytes:
        try:
            data = self.source if isinstance(self.source, bytes) else self.source.read_bytes()
        except OSError as error:
            raise InputError(f"{self.filename}: cannot be read ({error.strerror})") from None
        if is_zip(data):  # the service would answer for each file in it
            raise InputError(f"{self.filename or f'image {self.index}'}: a zip; unpack it and give the folder")
        return data


class Client:
    """A connection to a service; threads may share it.

    A busy service (429, 503) and a broken connection are tried again, after the time the service asked for and a random
    one on top, so that clients which were turned away together do not come back together. Names of files stay here.
    """

    def __init__(
        self,
        url: str,
        key: str | None = None,
        *,
        timeout: float = 30,
        retries: int = 3,
        sleep: Callable[[float], object] = time.sleep,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        """Connect to nothing yet.

        Args:
            url: Such as `https://xray.example`.
            key: API key, where the service asks for one.
            timeout: Seconds to wait for an answer.
            retries: How often a request is tried again.
            sleep: Waits so many seconds.
            jitter: A random number in [0, 1).

        Raises:
            InputError: Not an address.
        """
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        try:
            self._http = httpx.Client(base_url=url, timeout=timeout, headers=headers)
        except httpx.InvalidURL:
            raise InputError(f"{url}: not an address; give one such as http://127.0.0.1:8000") from None
        if self._http.base_url.scheme not in ("http", "https") or not self._http.base_url.host:
            raise InputError(f"{url}: not an address; give one such as http://127.0.0.1:8000")
        self._retries = retries
        self._sleep = sleep
        self._jitter = jitter

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    @overload
    def predict(
        self, images: Source | Iterable[Source], *, partial: Literal[False] = False
    ) -> list[ServedPrediction]: ...

    @overload
    def predict(
        self, images: Source | Iterable[Source], *, partial: Literal[True]
    ) -> list[ServedPrediction | ImageProblem]: ...

    def predict(
        self, images: Source | Iterable[Source], *, partial: bool = False
    ) -> list[ServedPrediction] | list[ServedPrediction | ImageProblem]:
        """Predict images.

        Args:
            images: One or many; folders are searched for images.
            partial: Whether an image that cannot be read gives an `ImageProblem` in its place instead of an error.

        Returns:
            One for each image in the order given, with its place and the path of its file.

        Raises:
            InputError: No such file, a folder without images, or a zip.
            ServiceError: The service did not answer, or said no.
        """
        given = [images] if isinstance(images, bytes | str | Path) else images
        batches = list(_batches(list(_expand(given))))
        with ThreadPoolExecutor(CONCURRENCY) as pool:
            futures = [pool.submit(self._predict, batch) for batch in batches]
            try:
                answers = [answer for future in futures for answer in future.result()]
            except BaseException:
                pool.shutdown(wait=False, cancel_futures=True)
                raise
        if partial:
            return answers
        predictions = []
        for answer in answers:
            if isinstance(answer, ImageProblem):
                raise ServiceError(
                    answer.title,
                    answer.detail,
                    status=answer.status,
                    type=answer.type,
                    filename=answer.filename,
                    index=answer.index,
                )
            predictions.append(answer)
        return predictions

    def explain(self, image: Source) -> bytes:
        """Draw where the model looked: a heat map over the image, PNG.

        Raises:
            InputError: No such file, or not one image.
            ServiceError: The service did not answer, or said no.
        """
        only = list(_expand([image]))
        if len(only) != 1:
            raise InputError(f"{only[0].filename}: one of {len(only)} images, where one can be explained at a time")
        return self._ask("POST", "/v1/explain", content=only[0].read(), headers=_RAW).content

    def model(self) -> BundleInfo:
        """What is served.

        Raises:
            ServiceError: The service did not answer, or has no model yet.
        """
        return _parse(BundleInfo, self._ask("GET", "/v1/model"))

    def ready(self) -> bool:
        """Whether the service takes requests now; False also where nothing answers."""
        return self._state() == "ready"

    def wait_until_ready(self, seconds: float = 60) -> None:
        """Wait until the service takes requests.

        Raises:
            ServiceError: It does not within so many seconds, or says that it never will.
        """
        ends = time.monotonic() + seconds
        while (state := self._state()) != "ready":
            if state == "failed":
                raise ServiceError("Not ready", "the service failed to load its model; its log says why")
            if time.monotonic() >= ends:
                raise ServiceError("Not ready", f"{state or 'no answer'} after {seconds:g} s")
            self._sleep(_POLL_S)

    def _state(self) -> str | None:
        try:
            return Status.model_validate_json(self._http.get("/readyz").content).status
        except (httpx.TransportError, ValidationError):
            return None

    def _predict(self, batch: Sequence[_Image]) -> list[ServedPrediction | ImageProblem]:
        try:
            response = self._ask("POST", "/v1/predict?partial=true", **_body(batch))
        except ServiceError as error:
            if error.status == 413 and len(batch) > 1:  # this service has narrower limits
                middle = len(batch) // 2
                return self._predict(batch[:middle]) + self._predict(batch[middle:])
            raise
        answer = _parse(PredictResponse, response)
        found: dict[int, ServedPrediction | ImageProblem] = {each.index: each for each in answer.predictions}
        for problem in answer.errors:
            place = f"image {problem.index + 1} of {len(batch)}: "
            found[problem.index] = problem.model_copy(update={"detail": problem.detail.removeprefix(place)})
        if found.keys() != set(range(len(batch))):
            raise ServiceError("Unexpected answer", "not one for each image", status=response.status_code)
        return [
            found[index].model_copy(update={"index": image.index, "filename": image.filename})
            for index, image in enumerate(batch)
        ]

    def _ask(self, method: str, path: str, **body: object) -> httpx.Response:
        for attempt in range(self._retries + 1):
            try:
                response = self._http.request(method, path, **body)  # type: ignore[arg-type]
            except (httpx.NetworkError, httpx.RemoteProtocolError, httpx.ConnectTimeout) as error:
                failure = ServiceError(
                    "No connection", f"{self._http.base_url}: {type(error).__name__} {error}".strip()
                )
                asked_for = 0.0
            except httpx.TransportError as error:  # it may be at work on the request still
                raise ServiceError("No answer", f"{self._http.base_url}: {type(error).__name__} {error}") from None
            else:
                if response.is_success:
                    return response
                failure = _failure(response)
                asked_for = _retry_after(response)
                if response.status_code not in _BUSY or asked_for > LONGEST_WAIT_S:
                    raise failure
            if attempt < self._retries:
                self._sleep(asked_for + self._jitter() * min(_BACKOFF_MOST_S, _BACKOFF_S * 2**attempt))
        raise failure


_RAW = {"Content-Type": "application/octet-stream"}


def _expand(given: Iterable[Source]) -> Iterator[_Image]:
    index = 0
    for source in given:
        if isinstance(source, bytes):
            yield _Image(index, source, len(source))
            index += 1
            continue
        for path in find_images([Path(source)]):
            yield _Image(index, path, path.stat().st_size)
            index += 1


def _batches(images: Sequence[_Image]) -> Iterator[list[_Image]]:
    """Requests of at most `IMAGES` images and `BYTES` bytes; a larger file goes alone."""
    batch: list[_Image] = []
    size = 0
    for image in images:
        if batch and (len(batch) == IMAGES or size + image.size > BYTES):
            yield batch
            batch, size = [], 0
        batch.append(image)
        size += image.size
    if batch:
        yield batch


def _body(batch: Sequence[_Image]) -> dict[str, object]:
    if len(batch) == 1:
        return {"content": batch[0].read(), "headers": _RAW}
    return {"files": [("file", (None, image.read(), "application/octet-stream")) for image in batch]}


def _parse[T: BaseModel](model: type[T], response: httpx.Response) -> T:
    try:
        return model.model_validate_json(response.content)
    except ValidationError as error:
        detail = f"not a {model.__name__} ({error.error_count()} errors); is this the address of a pneumo service?"
        raise ServiceError("Unexpected answer", detail, status=response.status_code) from None


def _failure(response: httpx.Response) -> ServiceError:
    status = response.status_code
    try:
        problem = Problem.model_validate_json(response.content)
    except ValidationError:  # from something in between
        return ServiceError(response.reason_phrase, "", status=status)
    return ServiceError(status=status, **problem.model_dump(exclude={"status"}))


def _retry_after(response: httpx.Response) -> float:
    """Seconds that the service asks for, 0 where it does not: a number, or a date (RFC 9110)."""
    text = response.headers.get("retry-after", "")
    if text.isascii() and text.isdecimal():
        return float(text)
    try:
        date = email.utils.parsedate_to_datetime(text)
    except ValueError:
        return 0.0
    return max(0.0, (date.replace(tzinfo=date.tzinfo or UTC) - datetime.now(UTC)).total_seconds())
