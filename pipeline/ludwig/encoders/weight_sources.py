"""Files of pretrained weights: in the caches of timm and torchvision, or downloaded as these libraries do."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from pneumo.pipeline.ludwig.runtime import hide_packages
from pneumo.pipeline.runs.reporter import Reporter
from pneumo.serving.contracts.errors import InputError, MachineError, first_line

CACHED, DOWNLOAD = "cached", "download"
_FILES = ("model.safetensors", "pytorch_model.bin")
"""Names of files in a repository of timm's, in its own order of preference."""


@dataclass(frozen=True)
class Source:
    """Where a library has the weights of a network: in a repository of Hugging Face's hub, at a URL, or both."""

    name: str
    command: str  # Python that downloads them
    repository: str = ""
    files: tuple[str, ...] = _FILES
    url: str = ""

    @classmethod
    def of_timm(cls, name: str) -> "Source":
        """Return the source of a network of timm; raise an `InputError` if there are no weights."""
        import timm

        stated: Any = timm.get_pretrained_cfg(name)
        if stated is None or not (stated.hf_hub_id or stated.url):
            raise InputError(f"encoder backbone: timm has no weights for {name!r}; set weights: null, or name another")
        files = (stated.hf_hub_filename,) if stated.hf_hub_filename else _FILES
        command = f"import timm; timm.create_model('{name}', pretrained=True)"
        return cls(name, command, stated.hf_hub_id or "", files, stated.url or "")

    @classmethod
    def of_torchvision(cls, name: str) -> "Source":
        """Return the source of a network of torchvision."""
        import torchvision.models

        command = f"import torchvision; torchvision.models.get_model('{name}', weights='DEFAULT')"
        return cls(name, command, url=torchvision.models.get_model_weights(name).DEFAULT.url)

    def find(self) -> Path | None:
        """Return the file of an earlier download."""
        from huggingface_hub import try_to_load_from_cache

        found: list[object] = [try_to_load_from_cache(self.repository, file) for file in self.files if self.repository]
        found += [self._at_url] if self.url else []
        return next((Path(file) for file in found if isinstance(file, str) and Path(file).is_file()), None)

    def require(self) -> Path:
        """Return the file of an earlier download; raise a `MachineError` if there is none."""
        if file := self.find():
            return file
        from huggingface_hub.constants import HF_HUB_CACHE

        hub = f"{HF_HUB_CACHE}/models--{self.repository.replace('/', '--')}" if self.repository else ""
        raise MachineError(
            f"encoder backbone: no weights of {self.name!r} in {' or '.join(filter(None, (hub, self._at_url)))}; "
            f"set weights: {DOWNLOAD}, download them on a machine with internet "
            f'by `python -c "{self.command}"`, or set weights: to a file or null'
        )

    def download(self, reporter: Reporter) -> None:
        """Download the file into the library's cache, unless it is there.

        Raises:
            MachineError: It cannot be downloaded.
        """
        if self.find():
            return
        place = f"{self.repository} on Hugging Face's hub" if self.repository else self.url
        reporter.message(f"downloading weights of {self.name} from {place} ...")
        try:
            if not (self.repository and self._download_from_hub()):
                torch.hub.load_state_dict_from_url(
                    self.url, map_location="cpu", progress=False, check_hash=True, weights_only=True
                )
        except Exception as error:  # the libraries raise many kinds
            raise MachineError(
                f"encoder backbone: weights of {self.name!r} cannot be downloaded from {place}: {first_line(error)}; "
                f'on a machine with internet, `python -c "{self.command}"` downloads them, or set weights: to a file'
            ) from error

    def _download_from_hub(self) -> bool:
        from huggingface_hub import hf_hub_download
        from huggingface_hub.errors import RemoteEntryNotFoundError

        for file in self.files:
            try:
                hf_hub_download(self.repository, file)
                return True
            except RemoteEntryNotFoundError:
                if file == self.files[-1] and not self.url:
                    raise
        return False

    @property
    def _at_url(self) -> str:
        return str(Path(torch.hub.get_dir(), "checkpoints", Path(self.url).name)) if self.url else ""


SOURCES = {"timm": Source.of_timm, "torchvision": Source.of_torchvision}


def download_weights(config: Mapping[str, Any], reporter: Reporter) -> None:
    """Download what the encoders of a config ask for by `weights: download`; raises the errors of `download`."""
    encoder = config["input_features"][0]["encoder"]
    for section in (encoder, *encoder.get("members", ())):
        if section.get("weights") == DOWNLOAD:
            with hide_packages("wandb"):  # see `use_scratch_folder`
                source = SOURCES[section.get("library", "timm")](section.get("network", "resnet18"))
            source.download(reporter)
