"""Settings of the service, from options or from the environment."""

import difflib
import logging
import os
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

from pydantic import AfterValidator, BaseModel, BeforeValidator, Field, SecretStr, ValidationError

from pneumo.serving.contracts.errors import InputError
from pneumo.serving.contracts.setting_types import MAX_PIXELS, MAX_REQUEST_PIXELS, Rate, Root, parse_root
from pneumo.serving.contracts.sites import SiteSource

PREFIX = "PNEUMO_"
OTHERS = ("CACHE", "DEBUG", "DRIFT_UNTOLD", "RAY_MIN_REPLICAS", "RAY_MAX_REPLICAS", "REAL_DATA", "TRACK")
"""Variables that are no settings of the service."""
LOG_URL = "sqlite:///predictions.sqlite3"
"""Default prediction log of `pneumo serve` and `pneumo drift`."""

_ORIGIN = r"https?://[a-z0-9._-]+(:[0-9]{1,5})?|https?://\[[0-9a-f:.]+\](:[0-9]{1,5})?|\*"
_HOST = r"(\*\.)?[a-z0-9_-]+(\.[a-z0-9_-]+)*|[0-9a-f:.]+|\*"
_PATH = r"^(/[A-Za-z0-9._~-]+)*$"
_SECRET = frozenset({"drift_webhook", "log_url"})
"""Settings whose values no error shows."""


def _parse_share(value: object) -> object:
    """Return 0.1 for `10%`; raise a `ValueError` for a text that could be meant as a percentage or as a share."""
    if not isinstance(value, str):
        return value
    try:
        number = float(value.removesuffix("%"))
    except ValueError:
        raise ValueError("must be a percentage, such as 10%") from None
    if not value.endswith("%") and 1 <= number <= 100:  # 1 may mean 1% or all
        raise ValueError(f"write {number:g}%" + (" or 100%" if number == 1 else ""))
    return number / 100 if value.endswith("%") else number


def _parse_with(parse: Callable[[str], object]) -> BeforeValidator:
    return BeforeValidator(lambda value: parse(value) if isinstance(value, str) else value)


def _list_of(pattern: str, expected: str) -> BeforeValidator:
    """Return a parser of texts in lower case, separated by commas, as the environment holds them."""

    def parse(value: str | tuple[str, ...]) -> tuple[str, ...]:
        texts = tuple(text.strip().lower() for text in value.split(",")) if isinstance(value, str) else value
        if not all(re.fullmatch(pattern, text) for text in texts):
            raise ValueError(f"must be {expected}, with commas between")
        return texts

    return BeforeValidator(parse)


def _check_web_address(value: str) -> str:
    """Return a web address without a trailing slash."""
    parts = urlsplit(value)
    if parts.scheme not in ("http", "https") or not parts.hostname or re.search(r"[\s\x00-\x1f]", value):
        raise ValueError("must be an address such as https://ward.example/pneumo")
    return value.rstrip("/")


def _check_secret_address(value: SecretStr) -> SecretStr:
    _check_web_address(value.get_secret_value())
    return value


Share = Annotated[float, BeforeValidator(_parse_share), Field(ge=0, le=1)]


class Settings(BaseModel, frozen=True, extra="forbid", protected_namespaces=()):
    """Settings of the service; each can be given as `PNEUMO_` and its name in capitals.

    Attributes:
        model: Alias, version or bundle folder to serve; a value with a slash is always a folder.
        models_dir: Folder of the registry, or its address in a bucket, such as gs://bucket/models.
        host: Address to listen on.
        port: Port to listen on; 0 takes a free one.
        max_bytes: Largest request body, in bytes.
        max_pixels: Largest image, width times height.
        max_images: Most images per request.
        max_request_pixels: Most pixels of all images of a request together.
        threads: Threads per network run; by default the available cores, shared by the workers.
        workers: Processes that serve.
        timeout_s: Seconds in which a request body must arrive, and in which its answer must be sent.
        max_wait_s: Load shedding: a request whose predicted wait for the network is longer, in seconds, is refused.
        max_pending_bytes: Most bytes of request bodies in memory at a time.
        body_pause_s: Longest pause in a request body, in seconds.
        min_body_rate: Least mean rate of a request body after that time, in bytes per second.
        header_s: Seconds in which the headers of a request must arrive.
        max_header_bytes: Most bytes of the first line and the headers of a request.
        max_headers: Most headers of a request.
        max_url_bytes: Longest path and query of a request, in bytes.
        max_connections: Most open connections per worker; the one that has been idle longest makes room.
        max_client_connections: Most of them per client address, or per /64 network for IPv6; 0 sets no limit. The
            proxies in `FORWARDED_ALLOW_IPS` (by default this machine) have none.
        keep_alive_s: Seconds that an idle connection stays open.
        drain_s: Graceful shutdown: seconds from the stop signal in which new connections are taken at least.
        reload_s: Seconds between checks of the registry for another version; 0 never checks.
        challenger: Share of requests that the alias `challenger` answers, in [0, 1].
        shadow: Whether the alias `challenger` sees all requests without answering.
        log_url: Database of the prediction log, `sqlite:///FILE` or `postgresql://...`; by default there is no log.
        log_spool: Folder that holds rows of the prediction log while its database cannot be reached.
        log_days: Rows of the prediction log that are older are deleted.
        log_rows: The oldest rows of the prediction log beyond this number are deleted.
        log_site: Site that the prediction log keeps with each image, and metrics count by: `key`, the name of the API
            key; `header:NAME`, a header that a proxy sets; or `dicom:` and one or more of Manufacturer,
            ManufacturerModelName and ViewPosition, as the file holds them. By default none is kept.
        drift_minutes: Minutes between drift checks of the served images; by default no check is made by time.
        drift_rows: Images between drift checks; by default no check is made by number.
        drift_window: Window of a drift check: the newest images of the champion.
        drift_webhook: Secret address to which a change of the verdict is posted, as JSON that Slack accepts.
        public_url: Public address of the service, for the link in that message; its pages count as the service's own.
        log_format: Format of log lines: `text` for people, `json` for log collectors.
        auth: Whether clients need an API key; `auto` requires one unless `host` is this machine alone.
        keys: File of API keys.
        rate: Rate limit per API key, such as `600/minute`; per client address if no keys are required and `host` is
            not this machine alone. By default unlimited. Each worker counts its own requests.
        cors_origins: Other origins whose pages may send requests.
        hosts: Host names at which the service answers, besides `localhost`, its addresses and that of `public_url`;
            `*.ward.example` names all below a domain, `*` any. They are checked if no keys are required, or if set.
        root_path: Path at which a proxy publishes the service, such as `/pneumo`; by default the proxy's
            `X-Forwarded-Prefix`.
        metrics_public: Whether `/metrics` answers without a key to clients outside this machine.
    """

    model: str = "champion"
    models_dir: Annotated[Root, BeforeValidator(parse_root)] = Path("models")
    host: str = "127.0.0.1"
    port: int = Field(default=8000, ge=0, le=65535)
    max_bytes: int = Field(default=20_000_000, ge=1)
    max_pixels: int = Field(default=MAX_PIXELS, ge=1)
    max_images: int = Field(default=32, ge=1)
    max_request_pixels: int = Field(default=MAX_REQUEST_PIXELS, ge=1)
    threads: int | None = Field(default=None, ge=1)
    workers: int = Field(default=1, ge=1, le=64)
    timeout_s: float = Field(default=30, gt=0)
    max_wait_s: float = Field(default=5, gt=0)
    max_pending_bytes: int = Field(default=200_000_000, ge=1)
    body_pause_s: float = Field(default=10, gt=0)
    min_body_rate: int = Field(default=1000, ge=0)
    header_s: float = Field(default=10, gt=0)
    max_header_bytes: int = Field(default=32_768, ge=1024)
    max_headers: int = Field(default=100, ge=10)
    max_url_bytes: int = Field(default=8192, ge=256)
    max_connections: int = Field(default=500, ge=1)
    max_client_connections: int = Field(default=250, ge=0)
    keep_alive_s: int = Field(default=75, ge=1)
    drain_s: float = Field(default=0.5, ge=0)
    reload_s: float = Field(default=2, ge=0)
    challenger: Share = 0.0
    shadow: bool = False
    log_url: str | None = None
    log_spool: Path = Path("prediction-spool")
    log_days: float | None = Field(default=None, gt=0)
    log_rows: int | None = Field(default=None, ge=1)
    log_site: Annotated[SiteSource | None, _parse_with(SiteSource.parse)] = None
    drift_minutes: float | None = Field(default=None, gt=0, allow_inf_nan=False)
    drift_rows: int | None = Field(default=None, ge=1)
    drift_window: int = Field(default=500, ge=20, le=100_000)
    drift_webhook: Annotated[SecretStr, AfterValidator(_check_secret_address)] | None = None
    public_url: Annotated[str, AfterValidator(_check_web_address)] | None = None
    log_format: Literal["text", "json"] = "text"
    auth: Literal["auto", "on", "off"] = "auto"
    keys: Path = Path("keys.yaml")
    rate: Annotated[Rate | None, _parse_with(Rate.parse)] = None
    cors_origins: Annotated[
        tuple[str, ...], _list_of(_ORIGIN, "origins such as https://ward.example:8443, without a path")
    ] = ()
    hosts: Annotated[
        tuple[str, ...], _list_of(_HOST, "names such as xray.example or *.ward.example, without a port")
    ] = ()
    root_path: Annotated[str, Field(pattern=_PATH)] = ""
    metrics_public: bool = False

    @classmethod
    def warn_of_unknown_variables(cls, environment: Mapping[str, str] = os.environ) -> None:
        """Log a warning for each variable with our prefix that sets nothing, with the nearest name that does."""
        known = [*map(str.upper, cls.model_fields), *OTHERS]
        given = sorted(variable.removeprefix(PREFIX) for variable in environment if variable.startswith(PREFIX))
        for name in (name for name in given if name not in known):
            nearest = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
            hint = f"; did you mean {PREFIX}{nearest[0]}?" if nearest else ""
            logging.getLogger("pneumo.settings").warning("%s%s: no such setting%s", PREFIX, name, hint)

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] = os.environ, **options: Any) -> "Settings":
        """Read settings from the environment; options that are not None take precedence.

        Raises:
            InputError: An invalid value, named by its option or variable.
        """
        values: dict[str, Any] = {
            name: environment[variable]
            for name in cls.model_fields
            if environment.get(variable := PREFIX + name.upper())
        }
        cls.warn_of_unknown_variables(environment)
        options = {name: value for name, value in options.items() if value is not None}
        try:
            return cls.model_validate(values | options)
        except ValidationError as error:
            first = error.errors()[0]
            field = str(first["loc"][0])
            place = f"--{field.replace('_', '-')}" if field in options else PREFIX + field.upper()
            shown = "***" if field in _SECRET else repr(first["input"])
            raise InputError(f"{place}={shown}: {first['msg'].removeprefix('Value error, ')}") from None

    def checks_drift(self) -> bool:
        """Return whether the service runs drift checks by itself; raise an `InputError` if a setting lacks the log."""
        needs = {"drift_minutes": "drift checks need", "drift_rows": "drift checks need", "log_site": "a site needs"}
        names = [name for name in needs if getattr(self, name) is not None]
        if names and self.log_url is None:
            variable = PREFIX + names[0].upper()
            raise InputError(f"{variable}: {needs[names[0]]} the prediction log; set {PREFIX}LOG_URL, or unset it")
        return bool({*names} - {"log_site"})
