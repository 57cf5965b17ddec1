"""Evidently's page of a drift check, drawn for people: its plots and tables, with our p-values and thresholds."""

import html
import os
import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from pneumo.serving.contracts.errors import MachineError
from pneumo.serving.contracts.install_hints import missing_module
from pneumo.serving.contracts.schemas import NOTICE
from pneumo.serving.drift.column_tests import BEYOND, WARNING
from pneumo.serving.drift.samples import Sample
from pneumo.serving.drift.statistics import Kernel
from pneumo.serving.drift.verdict import ColumnResult, DriftCheck, Verdict

if TYPE_CHECKING:
    import pandas as pd

_SHOWN = {
    "anderson": "Anderson-Darling",
    "fisher": "Fisher's exact test",
    "all_inside": "oddest images in one part",
    "mmd": "maximum mean discrepancy",
}
_COLOURS = {Verdict.OK: "#1b7f4b", Verdict.WARNING: "#a15c00", Verdict.DRIFT: "#b3261e", Verdict.TOO_FEW: "#5f6368"}

_one_at_a_time = threading.Lock()
"""Evidently keeps tests in one place for all threads."""


@dataclass(frozen=True)
class EvidentlyPage:
    """A drift check as Evidently draws and records it.

    Attributes:
        page: Its HTML, UTF-8, whole in one file that needs no network, with our verdict above it.
        record: Its own record as JSON, for its user interface (`Snapshot.loads`).
    """

    page: bytes
    record: bytes


def compose_page(check: DriftCheck, reference: Sample, window: Sample) -> EvidentlyPage:
    """Let Evidently draw a check.

    It is given tests of ours, so that a column counts as drifted there where it does here, and the whole where any
    column does. Its drift score is one minus the p-value after the correction for the number of columns, since it puts
    the largest scores first. An embedding is drawn as each image's likeness to the reference.

    Args:
        check: The result; of a window that was too small there is nothing to draw.
        reference: What the window was compared with.
        window: What was compared.

    Raises:
        MachineError: Evidently is not installed.
        ValueError: The check has no columns.
    """
    if not check.columns:
        raise ValueError("nothing to draw: the check has no columns")
    os.environ.setdefault("DO_NOT_TRACK", "1")
    try:
        from evidently import DataDefinition, Dataset, Report
        from evidently.presets import DataDriftPreset
    except ModuleNotFoundError as error:
        raise MachineError(missing_module(error)) from None
    before, now = _frames(check, reference, window)
    numbers = [name for name in now if now[name].dtype.kind == "f"]
    shares = [name for name in now if name not in numbers]
    definition = DataDefinition(numerical_columns=numbers, categorical_columns=shares)
    current, known = (Dataset.from_pandas(frame, data_definition=definition) for frame in (now, before))
    columns = sorted(check.columns, key=lambda column: column.name)  # alike in all checks: its interface draws one line
    with _one_at_a_time, np.errstate(invalid="ignore"):  # it correlates constant columns
        preset = DataDriftPreset(
            columns=[column.name for column in columns],
            per_column_method=_register(columns),
            threshold=1 - WARNING,
            drift_share=0.01,  # Evidently's word on the whole: any column is enough
        )
        snapshot = Report([preset], include_tests=True).run(current, known)
        page = snapshot.get_html_str(as_iframe=False)
        record = snapshot.dumps()
    return EvidentlyPage(_with_verdict(page, check).encode(), record.encode())


def _register(columns: list[ColumnResult]) -> dict[str, Any]:
    """Give Evidently our tests; returns the name of each column's."""
    from evidently.legacy.calculations.stattests.registry import StatTest, register_stattest
    from evidently.legacy.core import ColumnType

    results = {column.name: column for column in columns}

    def result(reference: "pd.Series[Any]", current: "pd.Series[Any]", kind: Any, level: float) -> tuple[float, bool]:
        column = results[str(current.name)]
        return 1 - column.adjusted, column.verdict is not Verdict.OK

    for test, shown in _SHOWN.items():
        register_stattest(
            StatTest(
                name=f"pneumo_{test}",
                display_name=f"{shown}, corrected",
                allowed_feature_types=[ColumnType.Numerical, ColumnType.Categorical],
                default_threshold=1 - WARNING,
            ),
            result,
        )
    return {column.name: f"pneumo_{column.test}" for column in columns}


def _frames(check: DriftCheck, reference: Sample, window: Sample) -> "tuple[pd.DataFrame, pd.DataFrame]":
    """Reference and window with the columns of a check, in its order."""
    import pandas as pd

    kernel = Kernel(reference.embedding)
    strangest = float(reference.numbers["outlier_score"].max())

    def frame(sample: Sample) -> pd.DataFrame:
        values: dict[str, Any] = {
            **sample.numbers,
            "embedding": kernel.likeness(sample.embedding, own=sample is reference),
        }
        for name, of_kind in (*sample.shares.items(), (BEYOND, sample.numbers["outlier_score"] > strangest)):
            values[name] = np.where(of_kind, "yes", "no")
        return pd.DataFrame({column.name: values[column.name] for column in check.columns})

    return frame(reference), frame(window)


def _with_verdict(page: str, check: DriftCheck) -> str:
    """Our verdict on top, since Evidently's own counts columns."""
    what = (
        f"{check.images} images, {check.window}; {check.model}:{check.version}; "
        f"reference: {check.reference_images} images"
    )
    told = (
        '<div style="font: 16px/1.5 system-ui, sans-serif; margin: 16px 24px; padding: 12px 16px; color: #202124; '
        f'background: #fff; border-left: 6px solid {_COLOURS[check.verdict]}">'
        f'<b style="color: {_COLOURS[check.verdict]}">{html.escape(check.verdict.value.upper())}</b> '
        f"{html.escape(check.summary)}<br>"
        f'<span style="font-size: 13px; color: #5f6368">{html.escape(what)}; {check.time:%Y-%m-%d %H:%M} UTC. '
        f"Drift score is 1 - p after a correction for {len(check.columns)} columns; above {1 - WARNING:g} is drift. "
        f"{html.escape(NOTICE[0].upper() + NOTICE[1:])}.</span></div>"
    )
    head, tag, rest = page.partition("<body")
    inside, end, body = rest.partition(">")
    return head + tag + inside + end + told + body
