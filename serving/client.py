"""The Python client of a running service; it needs `httpx` (extra `client`), but neither ONNX Runtime nor FastAPI.

with Client("http://127.0.0.1:8000", key="pneumo_...") as client:
    for prediction in client.predict("chest_xray/test"):
        print(prediction.filename, prediction.label, prediction.probability)
"""

import email.utils
import itertools
import random
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal, Self, TypedDict, Unpack, overload

import httpx
from pydantic import BaseModel, ValidationError

from pneumo.serving.contracts.errors import InputError, PneumoError
from pneumo.serving.contracts.schemas import ImageProblem, PredictResponse, Problem, ServedPrediction, Status
from pneumo.serving.contracts.settings import Settings
from pneumo.serving.http.archive import is_zip
from pneumo.serving.inference.offline import find_images
from pneumo.serving.model.bundle import BundleInfo

IMAGES = 16
"""Most images per request: enough for full batches, and half of the service's default limit."""

BYTES = Settings.model_fields["max_bytes"].default * 9 // 10
"""Most bytes of files per request; if a service takes less, the request is split."""

CONCURRENCY = 4
"""Requests under way at once."""

LONGEST_WAIT_S = 60.0
"""Longest `Retry-After` for which a request is retried, in seconds."""

_BACKOFF_S, _LONGEST_BACKOFF_S = 0.25, 8.0
_POLL_S = 0.2
_BUSY = frozenset({429, 503})

Source = bytes | str | Path
"""The bytes of an image file, or the path of an image or a folder."""


class _Fields(TypedDict, total=False):
    status: int | None
    type: str
    request_id: str | None
    filename: str | None
    index: int | None


class ServiceError(PneumoError):
    """The service refused a request, or did not answer.

    Attributes:
        status: HTTP status, or None without an answer.
        type: The kind of problem, such as `urn:pneumo:problem:not-an-image`, or `about:blank`.
        title: The kind of problem in words.
        detail: The cause and the fix.
        request_id: The id in the service's log, or None.
        filename: The file that caused the problem, or None.
        index: Its index among the given images, from 0, or None.
    """

    def __init__(self, title: str, detail: str, **fields: Unpack[_Fields]) -> None:
        self.title, self.detail = title, detail
        self.status = fields.get("status")
        self.type = fields.get("type", "about:blank")
        self.request_id = fields.get("request_id")
        self.filename = fields.get("filename")
        self.index = fields.get("index")
        place = self.filename or (f"image {self.index}" if self.index is not None else "")
        shown = f"{self.status} {title}" if self.status else title
        super().__init__(": ".join(filter(None, (place, shown, detail))))


@dataclass(frozen=True)
class _Image:
    """One image to send: its index among the given images, its bytes or path, and its size in bytes."""

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


class _Body(TypedDict, total=False):
    content: bytes
    headers: dict[str, str]
    files: list[tuple[str, tuple[None, bytes, str]]]


class Client:
    """A connection to a service; threads may share it.

    Requests are retried if the service is busy (429, 503) or the connection breaks: after `Retry-After` plus a random
    time, so that clients which were refused together do not return together. File names are not sent.
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
        """Set up a client; it connects with the first request.

        Args:
            url: The service's address, such as `https://xray.example`.
            key: API key, if the service needs one.
            timeout: Seconds to wait for an answer.
            retries: Most retries of a request.
            sleep: Sleeps for some seconds.
            jitter: Returns a random number in [0, 1).

        Raises:
            InputError: The URL is invalid.
        """
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        try:
            self._http = httpx.Client(base_url=url, timeout=timeout, headers=headers)
            valid = self._http.base_url.scheme in ("http", "https") and self._http.base_url.host
        except httpx.InvalidURL:
            valid = False
        if not valid:
            raise InputError(f"{url}: not an address; give one such as http://127.0.0.1:8000")
        self._retries = retries
        self._sleep = sleep
        self._jitter = jitter

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
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
            images: One or more images; folders are searched for images.
            partial: Return an `ImageProblem` for an image that cannot be read, instead of raising an error.

        Returns:
            One item per image in the given order, with its index and the path of its file.

        Raises:
            InputError: A file does not exist or is a zip, or a folder holds no images.
            ServiceError: The service refused a request, or did not answer.
        """
        sources = [images] if isinstance(images, bytes | str | Path) else images
        batches = list(_split_batches(list(_expand(sources))))
        with ThreadPoolExecutor(CONCURRENCY) as pool:
            futures = [pool.submit(self._predict_batch, batch) for batch in batches]
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
                raise ServiceError(**answer.model_dump())
            predictions.append(answer)
        return predictions

    def explain(self, image: Source) -> bytes:
        """Return a PNG of the image under its heat map.

        Raises:
            InputError: The file does not exist, or there are several images.
            ServiceError: The service refused the request, or did not answer.
        """
        images = list(_expand([image]))
        if len(images) != 1:
            raise InputError(f"{images[0].filename}: one of {len(images)} images; only one can be explained at a time")
        return self._request("POST", "/v1/explain", content=images[0].read(), headers=_RAW).content

    def model(self) -> BundleInfo:
        """Return the description of the served model.

        Raises:
            ServiceError: The service has no model yet, or did not answer.
        """
        return _parse(BundleInfo, self._request("GET", "/v1/model"))

    def ready(self) -> bool:
        """Return whether the service takes requests; false if nothing answers."""
        return self._fetch_state() == "ready"

    def wait_until_ready(self, seconds: float = 60) -> None:
        """Wait until the service takes requests.

        Raises:
            ServiceError: It is not ready in time, or failed to load its model.
        """
        deadline = time.monotonic() + seconds
        while (state := self._fetch_state()) != "ready":
            if state == "failed":
                raise ServiceError("Not ready", "the service failed to load its model; its log says why")
            if time.monotonic() >= deadline:
                raise ServiceError("Not ready", f"{state or 'no answer'} after {seconds:g} s")
            self._sleep(_POLL_S)

    def _fetch_state(self) -> str | None:
        try:
            return Status.model_validate_json(self._http.get("/readyz").content).status
        except (httpx.TransportError, ValidationError):
            return None

    def _predict_batch(self, batch: Sequence[_Image]) -> list[ServedPrediction | ImageProblem]:
        try:
            response = self._request("POST", "/v1/predict?partial=true", **_build_body(batch))
        except ServiceError as error:
            if error.status == 413 and len(batch) > 1:  # the limits of this service are lower
                middle = len(batch) // 2
                return self._predict_batch(batch[:middle]) + self._predict_batch(batch[middle:])
            raise
        answer = _parse(PredictResponse, response)
        results: dict[int, ServedPrediction | ImageProblem] = {each.index: each for each in answer.predictions}
        for problem in answer.errors:
            place = f"image {problem.index + 1} of {len(batch)}: "
            results[problem.index] = problem.model_copy(update={"detail": problem.detail.removeprefix(place)})
        if results.keys() != set(range(len(batch))):
            raise ServiceError("Unexpected answer", "not one result per image", status=response.status_code)
        return [
            results[index].model_copy(update={"index": image.index, "filename": image.filename})
            for index, image in enumerate(batch)
        ]

    def _request(self, method: str, path: str, **body: Unpack[_Body]) -> httpx.Response:
        for attempt in range(self._retries + 1):
            try:
                response = self._http.request(method, path, **body)
            except (httpx.NetworkError, httpx.RemoteProtocolError, httpx.ConnectTimeout) as error:
                reason = f"{self._http.base_url}: {type(error).__name__} {error}".strip()
                failure, retry_after = ServiceError("No connection", reason), 0.0
            except httpx.TransportError as error:  # not retried: the service may still work on the request
                raise ServiceError("No answer", f"{self._http.base_url}: {type(error).__name__} {error}") from None
            else:
                if response.is_success:
                    return response
                failure, retry_after = _build_error(response), _parse_retry_after(response)
                if response.status_code not in _BUSY or retry_after > LONGEST_WAIT_S:
                    raise failure
            if attempt < self._retries:
                self._sleep(retry_after + self._jitter() * min(_LONGEST_BACKOFF_S, _BACKOFF_S * 2**attempt))
        raise failure


_RAW = {"Content-Type": "application/octet-stream"}


def _expand(sources: Iterable[Source]) -> Iterator[_Image]:
    files: Iterator[bytes | Path] = itertools.chain.from_iterable(
        [source] if isinstance(source, bytes) else find_images([Path(source)]) for source in sources
    )
    for index, file in enumerate(files):
        yield _Image(index, file, len(file) if isinstance(file, bytes) else file.stat().st_size)


def _split_batches(images: Sequence[_Image]) -> Iterator[list[_Image]]:
    """Split images into requests of at most `IMAGES` images and `BYTES` bytes; a larger file is sent alone."""
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


def _build_body(batch: Sequence[_Image]) -> _Body:
    if len(batch) == 1:
        return {"content": batch[0].read(), "headers": _RAW}
    return {"files": [("file", (None, image.read(), "application/octet-stream")) for image in batch]}


def _parse[T: BaseModel](model: type[T], response: httpx.Response) -> T:
    try:
        return model.model_validate_json(response.content)
    except ValidationError as error:
        detail = f"not a {model.__name__} ({error.error_count()} errors); is this the address of a pneumo service?"
        raise ServiceError("Unexpected answer", detail, status=response.status_code) from None


def _build_error(response: httpx.Response) -> ServiceError:
    status = response.status_code
    try:
        problem = Problem.model_validate_json(response.content)
    except ValidationError:  # from a proxy
        return ServiceError(response.reason_phrase, "", status=status)
    return ServiceError(**problem.model_dump() | {"status": status})


def _parse_retry_after(response: httpx.Response) -> float:
    """Return the seconds in `Retry-After`, a number or a date (RFC 9110); 0 without it."""
    text = response.headers.get("retry-after", "")
    if text.isascii() and text.isdecimal():
        return float(text)
    try:
        date = email.utils.parsedate_to_datetime(text)
    except ValueError:
        return 0.0
    return max(0.0, (date.replace(tzinfo=date.tzinfo or UTC) - datetime.now(UTC)).total_seconds())
