"""What a config says about workers."""

from dataclasses import dataclass
from typing import Any

from pneumo.pipeline.config import Experiment
from pneumo.serving.contracts.cores import available_cores
from pneumo.serving.contracts.errors import InputError, MachineError

FOLDER_PREFIX = "pneumo-ray-"
"""Ray's folders in /tmp begin with this and the id of the process that made them."""


@dataclass(frozen=True)
class Workers:
    """The `backend` section of a config that asks for Ray.

    Attributes:
        address: The cluster to join, or None for one of our own on this machine.
        number: Workers, or None: one for each GPU where there are any, else one for each machine.
        use_gpu: Whether each worker gets a GPU, or None: where the cluster has one.
        cpus: Cores of each worker, or None: this machine's cores shared out, or 1 on a cluster that is joined.
        gpus: GPUs of each worker, or None: 1 with `use_gpu`.
    """

    address: str | None
    number: int | None
    use_gpu: bool | None
    cpus: float | None
    gpus: float | None

    def allocate_resources(self, cluster: dict[str, float], machines: int) -> "Placement":
        """Decide what the config left open, and see that the cluster can hold it.

        Args:
            cluster: Resources of the whole cluster by Ray's names.
            machines: Machines in it.

        Raises:
            MachineError: The cluster is too small.
        """
        available = cluster.get("GPU", 0.0)
        use_gpu = available > 0 if self.use_gpu is None else self.use_gpu
        number = self.number or max(1, int(available) if use_gpu else machines)
        cpus = self.cpus
        if cpus is None:
            cpus = 1.0 if self.address else float(max(1, available_cores() // number))
        gpus = (self.gpus if self.gpus is not None else 1.0) if use_gpu else 0.0
        for name, wanted in (("CPU", cpus * number), ("GPU", gpus * number)):
            found = cluster.get(name, 0.0)
            if wanted > found:
                raise MachineError(
                    f"{number} workers need {wanted:g} {name}, the cluster has {found:g}; "
                    "change backend.trainer.num_workers or resources_per_worker, or join another with --address"
                )
        return Placement(number, use_gpu, cpus, gpus)

    def local_cpus(self) -> int:
        """Cores that a cluster of our own is told it has: at least what the workers ask for."""
        return max(available_cores(), round((self.number or 1) * (self.cpus or 1) + 0.49))


@dataclass(frozen=True)
class Placement:
    """What the workers of a run are given: how many there are, cores and GPUs of each."""

    number: int
    use_gpu: bool
    cpus: float
    gpus: float

    def share(self, name: str, size: int) -> int:
        """Each worker's part of a batch.

        Raises:
            InputError: The batch cannot be shared out evenly.
        """
        if size % self.number:
            raise InputError(
                f"{name} is {size}, the batch of all workers together: it must be a multiple of the {self.number} "
                f"workers, such as {self.number * max(1, round(size / self.number))}"
            )
        return size // self.number

    def whole(self, share: int) -> int:
        """The batch that a worker's part belongs to."""
        return share * self.number


def read_workers(experiment: Experiment, address: str | None = None) -> Workers | None:
    """What an experiment asks for; None where it trains in this process.

    Args:
        experiment: A checked config.
        address: The cluster to join: `auto`, `host:port`, or `ray://host:port`.

    Raises:
        InputError: An address without Ray, or a batch that the stated workers cannot share.
    """
    backend: dict[str, Any] = experiment.config["backend"]
    if backend.get("type") != "ray":
        if address is not None:
            raise InputError(
                "--address joins a Ray cluster, but the config trains in this process: "
                "add -o 'backend={type: ray}' or leave --address out"
            )
        return None
    trainer: dict[str, Any] = backend.get("trainer") or {}
    each: dict[str, float] = trainer.get("resources_per_worker") or {}
    workers = Workers(address, trainer.get("num_workers"), trainer.get("use_gpu"), each.get("CPU"), each.get("GPU"))
    if workers.number is not None:
        batch = experiment.config["trainer"]["batch_size"]
        try:
            Placement(workers.number, False, 1, 0).share("trainer.batch_size", batch)
        except InputError as error:
            experiment.document.fail(("trainer", "batch_size"), str(error))
    return workers
