"""What can be set about the service, from options or from the environment."""

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, SecretStr, ValidationError

from pneumo.serving.contracts.errors import InputError
from pneumo.serving.contracts.setting_types import MAX_PIXELS, Rate, Root, parse_root

PREFIX = "PNEUMO_"
LOG_URL = "sqlite:///predictions.sqlite3"
"""The prediction log of `pneumo serve` and `pneumo drift` where none is named."""


def _share(value: Any) -> Any:
    """`10%` is 0.1."""
    if isinstance(value, str) and value.endswith("%"):
        try:
            return float(value[:-1]) / 100
        except ValueError:
            return value
    return value


Share = Annotated[float, BeforeValidator(_share), Field(ge=0, le=1)]


_ORIGIN = re.compile(r"https?://[a-z0-9._-]+(:[0-9]{1,5})?|https?://\[[0-9a-f:.]+\](:[0-9]{1,5})?|\*")


def _rate(value: Any) -> Any:
    return Rate.parse(value) if isinstance(value, str) else value


def _origins(value: Any) -> Any:
    """Origins with commas between them, as from the environment."""
    origins = [origin.strip().lower() for origin in value.split(",")] if isinstance(value, str) else value
    for origin in origins:
        if not _ORIGIN.fullmatch(origin):
            raise ValueError("must be origins such as https://ward.example:8443, without a path, with commas between")
    return origins


def _web_address(value: str) -> str:
    """Without a slash at its end."""
    parts = urlsplit(value)
    if parts.scheme not in ("http", "https") or not parts.hostname or re.search(r"[\s\x00-\x1f]", value):
        raise ValueError("must be an address such as https://ward.example/pneumo")
    return value.rstrip("/")


def _secret_address(value: SecretStr) -> SecretStr:
    _web_address(value.get_secret_value())
    return value


_SECRET = frozenset({"drift_webhook", "log_url"})
"""Settings whose values no error shows."""


class Settings(BaseModel):
    """Settings of the service; each can be given as `PNEUMO_` and its name in capitals.

    Attributes:
        model: Alias, version or bundle folder to serve; with a slash in it always a folder.
        models_dir: Folder of the registry, or its address in a bucket, such as gs://bucket/models.
        host: Address to listen on.
        port: Port to listen on; 0 takes a free one.
        max_bytes: Largest request body, in bytes.
        max_pixels: Largest image, width times height.
        max_images: Most images in a request.
        threads: Threads of one network run; by default the cores this process may use, shared by the workers.
        workers: Processes that serve.
        timeout_s: Seconds that a body may take to come, and as many that its answer may take.
        max_wait_s: Requests that would wait longer for the network are refused at once, in seconds.
        max_pending_bytes: Bytes of request bodies in memory at a time.
        keep_alive_s: Seconds that an idle connection stays open.
        drain_s: Seconds between the order to stop and the end of new connections.
        reload_s: Seconds between two looks at the registry; 0 never looks.
        challenger: Share of requests that the alias `challenger` answers, in [0, 1].
        shadow: Whether the alias `challenger` sees all requests without answering.
        log_url: Database of the prediction log, `sqlite:///FILE` or `postgresql://...`; by default none is kept.
        log_spool: Folder where its rows wait while the database is away.
        log_days: Rows of it that are older are deleted.
        log_rows: The oldest rows of it beyond this number are deleted.
        drift_minutes: Minutes between two drift checks of the served images; by default none is made by time.
        drift_rows: Images after which a drift check is made; by default none is made by their number.
        drift_window: Newest images of the champion that a drift check is about.
        drift_webhook: Where a change of the verdict is posted, as JSON such as Slack takes; the address is a secret.
        public_url: Where people reach the service, for the link in that message.
        log_format: How log lines look: `text` for people, `json` for collectors of logs.
        auth: Whether API keys are asked for; `auto` asks unless `host` is this machine alone.
        keys: The file of API keys.
        rate: Requests of each key, such as `600/minute`; of each address where no keys are asked for and `host` is not
            this machine alone. By default unlimited. Each worker counts for itself.
        cors_origins: Other origins whose pages may ask.
        metrics_public: Whether `/metrics` answers others than this machine without a key.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())

    model: str = "champion"
    models_dir: Annotated[Root, BeforeValidator(parse_root)] = Path("models")
    host: str = "127.0.0.1"
    port: int = Field(default=8000, ge=0, le=65535)
    max_bytes: int = Field(default=20_000_000, ge=1)
    max_pixels: int = Field(default=MAX_PIXELS, ge=1)
    max_images: int = Field(default=32, ge=1)
    threads: int | None = Field(default=None, ge=1)
    workers: int = Field(default=1, ge=1, le=64)
    timeout_s: float = Field(default=30, gt=0)
    max_wait_s: float = Field(default=5, gt=0)
    max_pending_bytes: int = Field(default=200_000_000, ge=1)
    keep_alive_s: int = Field(default=75, ge=1)
    drain_s: float = Field(default=0.5, ge=0)
    reload_s: float = Field(default=2, ge=0)
    challenger: Share = 0.0
    shadow: bool = False
    log_url: str | None = None
    log_spool: Path = Path("prediction-spool")
    log_days: float | None = Field(default=None, gt=0)
    log_rows: int | None = Field(default=None, ge=1)
    drift_minutes: float | None = Field(default=None, gt=0, allow_inf_nan=False)
    drift_rows: int | None = Field(default=None, ge=1)
    drift_window: int = Field(default=500, ge=20, le=100_000)
    drift_webhook: Annotated[SecretStr, AfterValidator(_secret_address)] | None = None
    public_url: Annotated[str, AfterValidator(_web_address)] | None = None
    log_format: Literal["text", "json"] = "text"
    auth: Literal["auto", "on", "off"] = "auto"
    keys: Path = Path("keys.yaml")
    rate: Annotated[Rate | None, BeforeValidator(_rate)] = None
    cors_origins: Annotated[tuple[str, ...], BeforeValidator(_origins)] = ()
    metrics_public: bool = False

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] = os.environ, **given: Any) -> "Settings":
        """Read settings from the environment; values given by name that are not None go first.

        Raises:
            InputError: A value that cannot be right, named by its variable.
        """
        values: dict[str, Any] = {
            name: environment[variable]
            for name in cls.model_fields
            if environment.get(variable := PREFIX + name.upper())
        }
        options = {name: value for name, value in given.items() if value is not None}
        try:
            return cls.model_validate(values | options)
        except ValidationError as error:
            first = error.errors()[0]
            field = str(first["loc"][0])
            place = f"--{field.replace('_', '-')}" if field in options else PREFIX + field.upper()
            shown = "***" if field in _SECRET else repr(first["input"])
            raise InputError(f"{place}={shown}: {first['msg'].removeprefix('Value error, ')}") from None

    def checks_drift(self) -> bool:
        """Whether the service shall make drift checks by itself.

        Raises:
            InputError: It shall, and no log is kept.
        """
        wanted = [name for name in ("drift_minutes", "drift_rows") if getattr(self, name) is not None]
        if wanted and self.log_url is None:
            variable = PREFIX + wanted[0].upper()
            raise InputError(f"{variable}: drift is judged from the prediction log; set {PREFIX}LOG_URL, or unset it")
        return bool(wanted)
