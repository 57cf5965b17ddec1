"""The prediction log as a Parquet file."""

from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import sqlalchemy as sa

from pneumo.serving.contracts.files import atomic_path
from pneumo.serving.predictions.log_tables import UtcTime, predictions
from pneumo.serving.predictions.store import LogStore
from pneumo.serving.predictions.windows import Window, read_labelled


def export_log(store: LogStore, path: Path, *, since: datetime | None = None) -> int:
    """Write the columns of `predictions`, and `true_label` where one came, oldest first.

    Args:
        store: The log.
        path: The file; one that is there is replaced once the new one is whole.
        since: Leave out what is older.

    Returns:
        How many rows.

    Raises:
        SQLAlchemyError: The database is away; no file is written.
        OSError: It cannot be written.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    schema = pa.schema([(column.name, _type(column)) for column in predictions.columns] + [("true_label", pa.string())])
    path.parent.mkdir(parents=True, exist_ok=True)
    count = 0
    with atomic_path(path) as partial, pq.ParquetWriter(partial, schema) as writer:
        for rows in read_labelled(store, Window(lane=None, since=since)):
            for row in rows:
                row["embedding"] = np.frombuffer(row["embedding"], dtype="<f4")
            writer.write_table(pa.Table.from_pylist(rows, schema=schema))
            count += len(rows)
    return count


def _type(column: "sa.Column[Any]") -> Any:
    import pyarrow as pa

    kinds: tuple[tuple[Any, Any], ...] = (
        (UtcTime, pa.timestamp("us", tz="UTC")),
        (sa.LargeBinary, pa.list_(pa.float32())),
        (sa.Boolean, pa.bool_()),
        (sa.Integer, pa.int32()),
        (sa.Float, pa.float64()),
        (sa.String, pa.string()),
    )
    return next(found for kind, found in kinds if isinstance(column.type, kind))
