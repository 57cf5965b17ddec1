"""Downloads of pretrained weights, from a server on this machine that answers as Hugging Face's hub does."""

import hashlib
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from pneumo.pipeline import config, training
from pneumo.pipeline.data.manifest import Dataset
from pneumo.pipeline.ludwig.encoders.weight_sources import Source, download_weights
from pneumo.serving.contracts.errors import MachineError
from tests.support.paths import CONFIGS
from tests.support.reporters import RecordingReporter

NETWORK = "test_resnet.r160_in1k"


@dataclass
class Hub:
    """Files by path, and the paths that were asked for."""

    address: str = ""
    files: dict[str, bytes] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)

    def put(self, name: str, content: bytes) -> None:
        self.files[f"/timm/{NETWORK}/resolve/main/{name}"] = content


@pytest.fixture
def hub(ludwig: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Hub]:
    """Serve files as the hub does; caches are empty."""
    import huggingface_hub.constants as constants

    served = Hub()

    class Answer(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            served.asked.append(self.path)
            content = served.files.get(self.path)
            self.send_response(200 if content is not None else 404)
            if content is None:
                self.send_header("X-Error-Code", "EntryNotFound")
            self.send_header("Content-Length", str(len(content or b"")))
            self.send_header("ETag", f'"{hashlib.sha256(content or b"").hexdigest()}"')
            self.send_header("X-Repo-Commit", "0" * 40)
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(content or b"")

        def do_HEAD(self) -> None:
            self.do_GET()

        def log_message(self, *_: object) -> None:
            """Stay quiet."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Answer) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        served.address = f"http://127.0.0.1:{server.server_port}"
        monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
        monkeypatch.setattr(constants, "ENDPOINT", served.address)
        template = served.address + "/{repo_id}/resolve/{revision}/{filename}"
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        yield served
        server.shutdown()


def weights(folder: Path, ending: str = ".safetensors") -> tuple[dict[str, Any], bytes]:
    """Return random tensors of the network by name, and the file that holds them."""
    import timm
    import torch
    from safetensors.torch import save_file

    tensors = timm.create_model(NETWORK.partition(".")[0]).state_dict()
    file = folder / f"made{ending}"
    if ending == ".safetensors":
        save_file(tensors, file)
    else:
        torch.save(tensors, file)
    return tensors, file.read_bytes()


def test_a_training_downloads_what_its_config_asks_for_once_and_keeps_it(
    hub: Hub, dataset: Dataset, tmp_path: Path
) -> None:
    from pneumo.pipeline.ludwig.inference import load_model

    tensors, content = weights(tmp_path)
    hub.put("model.safetensors", content)
    encoder = f"{{type: backbone, network: {NETWORK}, weights: download, trainable: false}}"
    shape = [f"input_features.0.preprocessing.{side}=32" for side in ("height", "width")]
    overrides = [f"input_features.0.encoder={encoder}", *shape, "trainer.epochs=1"]
    experiment = config.load_config(CONFIGS / "smoke.yaml", overrides)
    reporter = RecordingReporter()

    run = training.train(experiment, dataset, root=tmp_path / "runs", reporter=reporter)

    place = f"timm/{NETWORK} on Hugging Face's hub"
    assert reporter.messages.count(f"downloading weights of {NETWORK} from {place} ...") == 1
    network = load_model(run).model.input_features.get("image").encoder_obj.backbone.state_dict()
    assert all(bool((part == tensors[name]).all()) for name, part in network.items())
    count = len(hub.asked)
    download_weights(experiment.config, reporter)
    assert len(hub.asked) == count


def test_the_older_format_is_taken_if_the_newer_is_not_there(hub: Hub, tmp_path: Path) -> None:
    hub.put("pytorch_model.bin", weights(tmp_path, ".bin")[1])
    source = Source.of_timm(NETWORK)

    source.download(RecordingReporter())

    assert source.require().name == "pytorch_model.bin"


def test_a_file_at_a_url_is_kept_if_its_name_tells_its_digest(hub: Hub, tmp_path: Path) -> None:
    content = weights(tmp_path, ".pth")[1]
    for path in (right := f"/made-{hashlib.sha256(content).hexdigest()[:8]}.pth", wrong := "/made-01234567.pth"):
        hub.files[path] = content

    source = Source("made", "command", url=hub.address + right)
    source.download(RecordingReporter())

    assert source.require().read_bytes() == content
    with pytest.raises(MachineError, match=r"'made' cannot be downloaded from http.*invalid hash value"):
        Source("made", "command", url=hub.address + wrong).download(RecordingReporter())
    assert Source("made", "command", url=hub.address + wrong).find() is None


@pytest.mark.parametrize("offline", [False, True])
def test_a_download_that_fails_says_what_to_do_in_one_line(
    hub: Hub, monkeypatch: pytest.MonkeyPatch, offline: bool
) -> None:
    if offline:  # as `HF_HUB_OFFLINE=1` sets it
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)

    with pytest.raises(MachineError, match=r"cannot be downloaded from timm/.*python -c .* or set weights: ") as caught:
        Source.of_timm(NETWORK).download(RecordingReporter())

    assert "\n" not in str(caught.value)
    assert not (offline and hub.asked)
