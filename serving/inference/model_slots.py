"""Model slots: the loaded models of a service, which follow the registry while it runs."""

import logging
import threading
import time
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
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
"""The alias that `--challenger` and `--shadow` load."""

BUCKET_S = 10.0
"""Least time between two checks of a registry in a bucket, in seconds; each costs a request."""

_log = logging.getLogger("pneumo.service")


@dataclass
class ModelSlot:
    """One loaded model and its role.

    Attributes:
        name: The role.
        bundle: The bundle.
        predictor: The loaded network, warmed up.
        batcher: Runs the network.
        users: Requests that use the slot now.
        retired: The model ends when no request uses it any more.
    """

    name: SlotName
    bundle: Bundle
    predictor: Predictor
    batcher: Batcher
    users: int = 0
    retired: bool = False
    lock: threading.Lock = field(default_factory=threading.Lock)

    @contextmanager
    def in_use(self) -> Iterator[None]:
        """Keep the model running for the block, even if another version replaces it."""
        with self.lock:
            self.users += 1
        try:
            yield
        finally:
            with self.lock:
                self.users -= 1
                last = self.retired and not self.users
            if last:
                self._end()

    def retire(self) -> None:
        """End the model as soon as no request uses it."""
        with self.lock:
            unused = not self.retired and not self.users
            self.retired = True
        if unused:
            self._end()

    def _end(self) -> None:
        threading.Thread(target=self.batcher.close, name="retire", daemon=True).start()


class ModelSlots:
    """The champion, and optionally a challenger, which answers a share of requests, or a shadow, which answers none.

    `load` and `refresh` run in a thread; other methods belong to the event loop.
    """

    def __init__(self, settings: Settings, metrics: Metrics, answered: Callable[[float], object]) -> None:
        """Start empty; `answered` is called with the work of the images after each run, from the network's thread."""
        self._settings = settings
        self._metrics = metrics
        self._answered = answered
        self._loaded: dict[SlotName, ModelSlot] = {}
        self._signature: object = None
        self._stamp: object = None
        self._next_check = 0.0
        self._follows_alias = True
        self._closed = False
        self._loading = threading.Lock()

    @property
    def champion(self) -> ModelSlot | None:
        """The slot that answers, or None before it is loaded."""
        return self._loaded.get("champion")

    @property
    def loaded(self) -> list[ModelSlot]:
        """All loaded slots."""
        return list(self._loaded.values())

    @property
    def shadow(self) -> ModelSlot | None:
        """The slot that sees every request without answering it, or None."""
        return self._loaded.get("shadow")

    def get_champion_bundle(self) -> Bundle | None:
        """Return the champion's bundle, or None before it is loaded."""
        return self.champion.bundle if self.champion else None

    def pick(self, request_id: str) -> ModelSlot | None:
        """Return the slot that answers a request; equal ids get the same slot."""
        challenger = self._loaded.get("challenger")
        if challenger and zlib.crc32(request_id.encode()) < self._settings.challenger * 2**32:
            return challenger
        return self.champion

    def load(self, bundle: Bundle | None = None) -> None:
        """Load the models; `bundle` is the champion if it is open already. Raise if the champion cannot be loaded."""
        with self._loading:
            if bundle is None:
                bundle = Bundle.open(resolve(self._settings.model, self._settings.models_dir))
            else:
                self._follows_alias = self._is_configured(bundle)
            self._put("champion", bundle)
            self._follow_challenger()

    def refresh(self) -> None:
        """Load the versions that the aliases point at now; if that fails, the loaded version stays."""
        with self._loading:
            signature = self._read_signature()
            if signature == self._signature:
                return
            self._signature = signature
            if self._follows_alias:
                self._follow("champion", self._settings.model)
            self._follow_challenger()

    def close(self) -> None:
        """Retire every model, including one that is being loaded."""
        self._closed = True
        for slot in self._loaded.values():
            slot.retire()
        self._loaded = {}

    def _is_configured(self, bundle: Bundle) -> bool:
        """Return whether the settings name this bundle; any other is never replaced."""
        try:
            return resolve(self._settings.model, self._settings.models_dir).resolve() == bundle.folder.resolve()
        except (InputError, MachineError):
            return False

    def _follow_challenger(self) -> None:
        if self._settings.challenger:
            self._follow("challenger", CHALLENGER)
        if self._settings.shadow:
            self._follow("shadow", CHALLENGER)

    def _follow(self, name: SlotName, model: str) -> None:
        slot = self._loaded.get(name)
        try:
            if name != "champion" and find_version(model, self._settings.models_dir) is None:
                if slot:
                    self._drop(slot)
                return
            bundle = Bundle.open(resolve(model, self._settings.models_dir))
            if slot is None or slot.bundle.digest != bundle.digest:
                self._put(name, bundle)
                self._metrics.reloads.series("ok").inc()
        except (InputError, MachineError, OSError) as error:
            self._metrics.reloads.series("failed").inc()
            reason = type(error).__name__ if isinstance(error, OSError) else str(error)
            _log.error("%s stays %s: %s", name, slot.bundle.info.id if slot else "without a model", reason)
        if name in self._loaded:
            self._metrics.bundle_changed.labels(name).set(not _is_unchanged(self._loaded[name].bundle))

    def _put(self, name: SlotName, bundle: Bundle) -> None:
        predictor = Predictor(bundle, threads=self._settings.threads or count_network_threads(self._settings.workers))
        slot = ModelSlot(name, bundle, predictor, Batcher(predictor, self._count_batch))
        previous = self._loaded.get(name)
        self._loaded = {**self._loaded, name: slot}
        if previous:
            previous.retire()
        if self._closed:  # the service ended meanwhile
            self.close()
            return
        self._metrics.set_model(name, bundle.info, bundle.digest)
        if previous:
            _log.info("%s is now %s; before it was %s", name, bundle.info.id, previous.bundle.info.id)

    def _drop(self, slot: ModelSlot) -> None:
        self._loaded = {name: other for name, other in self._loaded.items() if other is not slot}
        slot.retire()
        self._metrics.clear_model(slot.name)
        _log.info("%s is no longer an alias", CHALLENGER)

    def _count_batch(self, images: int, seconds: float, work: float) -> None:
        self._answered(work)
        self._metrics.observe_batch(images, seconds)

    def _read_signature(self) -> object:
        """Return a value that changes with the registry, and with each file of a loaded or named bundle."""
        folders = {Path(self._settings.model), *(slot.bundle.folder for slot in self._loaded.values())}
        return self._read_stamp(), [stat for folder in sorted(folders) for stat in _stat_files(folder)]

    def _read_stamp(self) -> object:
        """Return the registry's stamp; for a bucket the last one if it is recent or cannot be read."""
        root = self._settings.models_dir
        if not is_address(root):
            return read_registry_stamp(root)
        if time.monotonic() >= self._next_check:
            self._next_check = time.monotonic() + max(self._settings.reload_s, BUCKET_S)
            try:
                self._stamp = read_registry_stamp(root)
            except (InputError, MachineError) as error:
                self._metrics.reloads.series("failed").inc()
                _log.error("the registry cannot be read: %s", error)
        return self._stamp


def count_network_threads(workers: int) -> int:
    """Return the threads of one network run: the cores of this process, divided by the service's workers."""
    return max(1, available_cores() // workers)


def _is_unchanged(bundle: Bundle) -> bool:
    """Return whether the files of a loaded bundle are unchanged; it answers from memory in any case."""
    try:
        return Bundle.open(bundle.folder).digest == bundle.digest
    except (BundleError, OSError):
        return False


def _stat_files(folder: Path) -> Iterator[tuple[str | int, ...]]:
    """Yield numbers that change with each file of a folder; files and folders that cannot be read give none."""
    with suppress(OSError):
        for path in sorted(folder.iterdir()):
            with suppress(OSError):
                status = path.stat()
                yield str(path), status.st_mtime_ns, status.st_size, status.st_ino
