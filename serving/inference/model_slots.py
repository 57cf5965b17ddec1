"""The models that a service has loaded, and how it follows the registry while it runs."""

import logging
import threading
import time
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from pneumo.serving.contracts.cores import available_cores
from pneumo.serving.contracts.errors import InputError, MachineError
from pneumo.serving.contracts.schemas import SlotName
from pneumo.serving.contracts.setting_types import is_address
from pneumo.serving.contracts.settings import Settings
from pneumo.serving.inference.batching import Batcher
from pneumo.serving.model.bundle import Bundle, BundleError
from pneumo.serving.model.predictor import Predictor
from pneumo.serving.model.registry import find_version, read_registry_stamp, resolve
from pneumo.serving.telemetry.metrics import Metrics

CHALLENGER = "challenger"
"""The alias that `--challenger` and `--shadow` are about."""

BUCKET_S = 10.0
"""Least time between two looks at a registry in a bucket, where each costs a request, in seconds."""

_log = logging.getLogger("pneumo.service")


@dataclass
class ModelSlot:
    """One loaded model, and what it is there for.

    Attributes:
        name: What it is there for.
        bundle: What it serves.
        predictor: Loaded and warm.
        batcher: Runs it.
        users: Requests that use it now.
    """

    name: SlotName
    bundle: Bundle
    predictor: Predictor
    batcher: Batcher
    users: int = 0
    retired: bool = False
    lock: threading.Lock = field(default_factory=threading.Lock)

    @contextmanager
    def in_use(self) -> Iterator["ModelSlot"]:
        """Keep it running meanwhile, also when another version takes its place."""
        with self.lock:
            self.users += 1
        try:
            yield self
        finally:
            with self.lock:
                self.users -= 1
                last = self.retired and not self.users
            if last:
                self._end()

    def retire(self) -> None:
        """End it once nothing uses it any more."""
        with self.lock:
            ends = not self.retired and not self.users
            self.retired = True
        if ends:
            self._end()

    def _end(self) -> None:
        threading.Thread(target=self.batcher.close, name="retire", daemon=True).start()


class ModelSlots:
    """Champion, and where asked for a challenger that answers a share of the requests or all of them unseen.

    `refresh` looks whether the registry means something else by now, or a file of a bundle changed. Other methods are
    for the event loop.
    """

    def __init__(self, settings: Settings, metrics: Metrics, answered: Callable[[int], object]) -> None:
        """Load nothing yet.

        Args:
            settings: What to serve.
            metrics: Told of versions, batches and reloads.
            answered: Told how many images each run of a network answered, from its thread.
        """
        self._settings = settings
        self._metrics = metrics
        self._answered = answered
        self._loaded: dict[SlotName, ModelSlot] = {}
        self._seen: object = None
        self._stamp: object = None
        self._ask_again = 0.0
        self._is_named = True
        self._closed = False
        self._loading = threading.Lock()

    @property
    def champion(self) -> ModelSlot | None:
        """What answers, or None before it is loaded."""
        return self._loaded.get("champion")

    @property
    def loaded(self) -> list[ModelSlot]:
        """Everything that is loaded."""
        return list(self._loaded.values())

    @property
    def shadow(self) -> ModelSlot | None:
        """What sees every request without answering it, where there is one."""
        return self._loaded.get("shadow")

    def pick(self, request_id: str) -> ModelSlot | None:
        """What shall answer a request: the same for the same id."""
        challenger = self._loaded.get("challenger")
        if challenger and zlib.crc32(request_id.encode()) < self._settings.challenger * 2**32:
            return challenger
        return self.champion

    def load(self, bundle: Bundle | None = None) -> None:
        """Load what is to be served, from a thread of its own.

        Args:
            bundle: The champion, where it is known already.

        Raises:
            InputError: There is no such model, or it is not what was sealed.
            BundleError: It does not run.
        """
        with self._loading:
            if bundle is None:
                bundle = Bundle.open(resolve(self._settings.model, self._settings.models_dir))
            else:
                self._is_named = self._means(bundle)
            self._put("champion", bundle)
            for name in self._others():
                self._follow(name, CHALLENGER)

    def refresh(self) -> None:
        """Take over what the registry means now; what fails leaves the loaded model where it is."""
        with self._loading:
            signature = self._signature()
            if signature == self._seen:
                return
            self._seen = signature
            if self._is_named:
                self._follow("champion", self._settings.model)
            for name in self._others():
                self._follow(name, CHALLENGER)

    def close(self) -> None:
        """Let every model end, also one that is being loaded."""
        self._closed = True
        for slot in self._loaded.values():
            slot.retire()
        self._loaded = {}

    def _means(self, bundle: Bundle) -> bool:
        """Whether the settings name a bundle that was given; another one stays what it is."""
        try:
            return resolve(self._settings.model, self._settings.models_dir).resolve() == bundle.folder.resolve()
        except (InputError, MachineError):
            return False

    def _others(self) -> list[SlotName]:
        wanted: list[SlotName] = ["challenger"] if self._settings.challenger else []
        return [*wanted, "shadow"] if self._settings.shadow else wanted

    def _follow(self, name: SlotName, model: str) -> None:
        slot = self._loaded.get(name)
        try:
            if name != "champion" and find_version(model, self._settings.models_dir) is None:
                if slot:
                    self._drop(name)
                return
            bundle = Bundle.open(resolve(model, self._settings.models_dir))
            if slot is None or slot.bundle.digest != bundle.digest:
                self._put(name, bundle)
                self._metrics.count_reload(ok=True)
        except (InputError, MachineError, OSError) as error:
            self._metrics.count_reload(ok=False)
            reason = type(error).__name__ if isinstance(error, OSError) else str(error)
            _log.error("%s stays %s: %s", name, slot.bundle.info.id if slot else "without a model", reason)
        if name in self._loaded:
            self._metrics.set_bundle_changed(name, changed=not _is_whole(self._loaded[name].bundle))

    def _put(self, name: SlotName, bundle: Bundle) -> None:
        predictor = Predictor(bundle, threads=self._settings.threads or count_network_threads(self._settings.workers))
        slot = ModelSlot(name, bundle, predictor, Batcher(predictor, self._batched))
        before = self._loaded.get(name)
        self._loaded = {**self._loaded, name: slot}
        if before:
            before.retire()
        if self._closed:  # the service ended meanwhile
            self.close()
            return
        self._metrics.set_model(name, bundle.info, bundle.digest)
        if before:
            _log.info("%s is now %s, it was %s", name, bundle.info.id, before.bundle.info.id)

    def _drop(self, name: SlotName) -> None:
        gone = self._loaded[name]
        self._loaded = {other: slot for other, slot in self._loaded.items() if other != name}
        gone.retire()
        self._metrics.clear_model(name)
        _log.info("%s is no alias any more", CHALLENGER)

    def _batched(self, images: int, seconds: float) -> None:
        self._answered(images)
        self._metrics.observe_batch(images, seconds)

    def _signature(self) -> object:
        """What changes when the registry does, or a file of a bundle that is loaded or named."""
        settings = self._settings
        folders = {Path(settings.model), *(slot.bundle.folder for slot in self._loaded.values())}
        paths = [path for folder in sorted(folders) for path in _files(folder)]
        return (self._registry_stamp(), *((str(path), *_stat(path)) for path in paths))

    def _registry_stamp(self) -> object:
        """That of the registry; of one in a bucket as it was asked for last, where that was a moment ago or fails."""
        root = self._settings.models_dir
        if not is_address(root):
            return read_registry_stamp(root)
        if time.monotonic() >= self._ask_again:
            self._ask_again = time.monotonic() + max(self._settings.reload_s, BUCKET_S)
            try:
                self._stamp = read_registry_stamp(root)
            except (InputError, MachineError) as error:
                self._metrics.count_reload(ok=False)
                _log.error("the registry cannot be looked at: %s", error)
        return self._stamp


def count_network_threads(workers: int) -> int:
    """Return the threads of one network run: the cores this process may use, shared by the service's workers."""
    return max(1, available_cores() // workers)


def _is_whole(bundle: Bundle) -> bool:
    """Whether the files of a loaded bundle are still those that were loaded; it answers from memory either way."""
    try:
        return Bundle.open(bundle.folder).digest == bundle.digest
    except (BundleError, OSError):
        return False


def _files(folder: Path) -> list[Path]:
    try:
        return sorted(folder.iterdir())
    except OSError:
        return [folder]


def _stat(path: Path) -> tuple[int, ...]:
    try:
        found = path.stat()
    except OSError:
        return ()
    return (found.st_mtime_ns, found.st_size, found.st_ino)
