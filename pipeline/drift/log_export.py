"""Exports the prediction log as a Parquet file."""

from datetime import datetime
from pathlib import Path

import numpy as np
import sqlalchemy as sa

from pneumo.serving.contracts.files import atomic_path
from pneumo.serving.predictions.log_tables import UtcTime, predictions
from pneumo.serving.predictions.store import LogStore
from pneumo.serving.predictions.windows import Window, read_labelled


def export_log(store: LogStore, path: Path, *, since: datetime | None = None) -> int:
    """Write the columns of `predictions` since a time, and the ground truth as `true_label`, oldest row first.

    A file at `path` is replaced when the new one is complete. Returns the number of rows.

    Raises:
        MachineError: The database cannot be reached; no file is written.
        OSError: The file cannot be written.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    types = {
        UtcTime: pa.timestamp("us", tz="UTC"),
        sa.LargeBinary: pa.list_(pa.float32()),
        sa.Boolean: pa.bool_(),
        sa.Integer: pa.int32(),
        sa.Float: pa.float64(),
        sa.String: pa.string(),
        sa.Text: pa.string(),
    }
    columns = {column.name: types[type(column.type)] for column in predictions.columns}
    schema = pa.schema(columns | {"true_label": pa.string()})
    path.parent.mkdir(parents=True, exist_ok=True)
    count = 0
    with store.translate_errors(), atomic_path(path) as partial, pq.ParquetWriter(partial, schema) as writer:
        for rows in read_labelled(store, Window(lane=None, since=since)):
            for row in rows:
                row["embedding"] = np.frombuffer(row["embedding"], dtype="<f4")
            writer.write_table(pa.Table.from_pylist(rows, schema=schema))
            count += len(rows)
    return count
