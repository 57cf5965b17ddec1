"""What can be set about the service, from options or from the environment."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from serving.errors import InputError
from serving.image import MAX_PIXELS

PREFIX = "PNEUMO_"


class Settings(BaseModel):
    """Settings of the service; each can be given as `PNEUMO_` and its name in capitals.

    Attributes:
        model: Alias, version or bundle folder to serve; with a slash in it always a folder.
        models_dir: Folder of the registry.
        host: Address to listen on.
        port: Port to listen on; 0 takes a free one.
        max_bytes: Largest request body, in bytes.
        max_pixels: Largest image, width times height.
        max_images: Most images in a request.
        threads: Threads of one network run; by default the cores this process may use.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())

    model: str = "champion"
    models_dir: Path = Path("models")
    host: str = "127.0.0.1"
    port: int = Field(default=8000, ge=0, le=65535)
    max_bytes: int = Field(default=20_000_000, ge=1)
    max_pixels: int = Field(default=MAX_PIXELS, ge=1)
    max_images: int = Field(default=32, ge=1)
    threads: int | None = Field(default=None, ge=1)

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
            raise InputError(f"{place}={first['input']!r}: {first['msg']}") from None
