"""Data-parallel training on a Ray cluster: `backend: {type: ray}` in a config.

Ludwig's own Ray backend converts the data to Dask, re-reads it through Ray Data and scales the learning rate with the
number of workers. Here Ludwig prepares the data and evaluates the result in the driver, as in a local run, and only
its training loop goes elsewhere: Ray Train starts the workers, each runs Ludwig's trainer over its share of each batch.
Nothing here loads Ray or Ludwig before it is used.
"""

from typing import TYPE_CHECKING, Any

from pneumo.pipeline.training.cluster.connection import connected
from pneumo.pipeline.training.cluster.placement import Placement, Workers, requested

if TYPE_CHECKING:
    from pneumo.pipeline.runs.run import Run

__all__ = ["Placement", "Workers", "backend", "connected", "requested"]


def backend(run: "Run", placement: Placement) -> Any:
    """Ludwig's backend for a run on the cluster that this process is connected to. Loads Ludwig."""
    from pneumo.pipeline.ludwig.cluster.driver import ClusterBackend

    return ClusterBackend(run, placement)
