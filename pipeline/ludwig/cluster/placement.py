"""Workers that a config asks for, and the resources that they get."""

from dataclasses import dataclass

from pneumo.pipeline.config import Experiment
from pneumo.serving.contracts.cores import available_cores
from pneumo.serving.contracts.errors import InputError, MachineError

FOLDER_PREFIX = "pneumo-ray-"
"""Ray's folders in /tmp begin with this and the id of the process that made them."""


@dataclass(frozen=True)
class Placement:
    """Number of workers of a run, and the cores and GPUs of each."""

    number: int
    use_gpu: bool
    cpus: float
    gpus: float

    def share(self, name: str, size: int) -> int:
        """Return each worker's share of a batch; raise InputError if it cannot be shared evenly."""
        if size % self.number:
            raise InputError(
                f"{name} is {size}, the batch of all workers together: it must be a multiple of the {self.number} "
                f"workers, such as {self.number * max(1, round(size / self.number))}"
            )
        return size // self.number


@dataclass(frozen=True)
class Workers:
    """The `backend` section of a config that trains on Ray."""

    address: str | None  # `auto`, `host:port` or `ray://host:port` to join; None starts a cluster on this machine
    number: int | None  # None: one per GPU if there are any, else one per machine
    use_gpu: bool | None  # None: if the cluster has GPUs
    cpus: float | None  # per worker; None: an even share of this machine's cores, or 1 on a cluster that is joined
    gpus: float | None  # per worker; None: 1 with `use_gpu`

    def allocate_resources(self, cluster: dict[str, float], machines: int) -> Placement:
        """Decide what the config leaves open, from a cluster's resources by Ray's names and its machines.

        Raises:
            MachineError: The cluster is too small.
        """
        available = cluster.get("GPU", 0.0)
        use_gpu = available > 0 if self.use_gpu is None else self.use_gpu
        number = self.number or max(1, int(available) if use_gpu else machines)
        even_share = 1.0 if self.address else float(max(1, available_cores() // number))
        cpus = even_share if self.cpus is None else self.cpus
        gpus = (self.gpus if self.gpus is not None else 1.0) if use_gpu else 0.0
        for name, needed in (("CPU", cpus * number), ("GPU", gpus * number)):
            if needed > cluster.get(name, 0.0):
                raise MachineError(
                    f"{number} workers need {needed:g} {name}, the cluster has {cluster.get(name, 0.0):g}; "
                    "change backend.trainer.num_workers or resources_per_worker, or join another with --address"
                )
        return Placement(number, use_gpu, cpus, gpus)

    def local_cpus(self) -> int:
        """Return the cores that a cluster on this machine is told it has: at least what the workers need."""
        return max(available_cores(), round((self.number or 1) * (self.cpus or 1) + 0.49))


def read_workers(experiment: Experiment, address: str | None = None) -> Workers | None:
    """Return the workers that an experiment asks for; None if it trains in this process.

    Raises:
        InputError: An address without Ray, or a batch that the stated workers cannot share.
    """
    backend = experiment.config["backend"]
    if backend.get("type") != "ray":
        if address is not None:
            raise InputError(
                "--address joins a Ray cluster, but the config trains in this process: "
                "add -o 'backend={type: ray}' or leave --address out"
            )
        return None
    trainer = backend.get("trainer") or {}
    each = trainer.get("resources_per_worker") or {}
    workers = Workers(address, trainer.get("num_workers"), trainer.get("use_gpu"), each.get("CPU"), each.get("GPU"))
    if workers.number is not None:
        try:
            Placement(workers.number, False, 1, 0).share(
                "trainer.batch_size", experiment.config["trainer"]["batch_size"]
            )
        except InputError as error:
            experiment.document.fail(("trainer", "batch_size"), str(error))
    return workers
