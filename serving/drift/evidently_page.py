"""Evidently's page of a drift check: its plots and tables, with pneumo's p-values and thresholds."""

import html
import threading
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from pneumo.serving.contracts.errors import MachineError
from pneumo.serving.contracts.install_hints import missing_module
from pneumo.serving.contracts.process_state import set_environment
from pneumo.serving.contracts.schemas import NOTICE
from pneumo.serving.drift.column_tests import BEYOND, WARNING
from pneumo.serving.drift.samples import Sample
from pneumo.serving.drift.statistics import Kernel
from pneumo.serving.drift.verdict import DriftCheck, Verdict
from pneumo.serving.drift.wording import SITE_HEADS, TESTS, describe_classes, list_sites

if TYPE_CHECKING:
    import pandas as pd

_COLOURS = {Verdict.OK: "#1b7f4b", Verdict.WARNING: "#a15c00", Verdict.DRIFT: "#b3261e", Verdict.TOO_FEW: "#5f6368"}

_one_at_a_time = threading.Lock()
"""Evidently's registry of tests is shared by all threads."""


@set_environment({"DO_NOT_TRACK": "1"})
def compose_page(check: DriftCheck, reference: Sample, window: Sample) -> bytes:
    """Draw a check with Evidently, as one HTML file without network access.

    Evidently gets pneumo's results as tests, so that it reports the same columns, and drift as a whole if any column
    drifts. Its drift score is one minus the adjusted p-value, since it puts the largest scores first. An embedding is
    drawn as each image's likeness to the reference.

    Raises:
        MachineError: Evidently is not installed.
        ValueError: The check has no columns.
    """
    if not check.columns:
        raise ValueError("nothing to draw: the check has no columns")
    try:
        from evidently import DataDefinition, Dataset, Report
        from evidently.presets import DataDriftPreset
    except ModuleNotFoundError as error:
        raise MachineError(missing_module(error)) from None
    before, now = _build_frames(check, reference, window)
    numbers = list(now.select_dtypes("float"))
    definition = DataDefinition(numerical_columns=numbers, categorical_columns=list(now.columns.drop(numbers)))
    current, reference_set = (Dataset.from_pandas(frame, data_definition=definition) for frame in (now, before))
    with _one_at_a_time, np.errstate(invalid="ignore"):  # it correlates constant columns
        _register_tests(check)
        preset = DataDriftPreset(
            columns=[column.name for column in check.columns],
            per_column_method={column.name: f"pneumo_{column.test}" for column in check.columns},
            threshold=1 - WARNING,
            drift_share=0.01,  # any column is drift of the whole
        )
        snapshot = Report([preset], include_tests=True).run(current, reference_set)
        return _add_verdict(snapshot.get_html_str(as_iframe=False), check).encode()


def _register_tests(check: DriftCheck) -> None:
    from evidently.legacy.calculations.stattests.registry import StatTest, register_stattest
    from evidently.legacy.core import ColumnType

    columns = {column.name: column for column in check.columns}

    def judge(_reference: object, current: "pd.Series[float]", _kind: object, _level: float) -> tuple[float, bool]:
        column = columns[str(current.name)]
        return 1 - column.adjusted, column.verdict is not Verdict.OK

    for test, title in TESTS.items():
        register_stattest(
            StatTest(
                name=f"pneumo_{test}",
                display_name=f"{title}, corrected",
                allowed_feature_types=[ColumnType.Numerical, ColumnType.Categorical],
                default_threshold=1 - WARNING,
            ),
            judge,
        )


def _build_frames(check: DriftCheck, reference: Sample, window: Sample) -> "tuple[pd.DataFrame, pd.DataFrame]":
    """Return reference and window with the columns of a check, in its order."""
    import pandas as pd

    kernel = Kernel(reference.embedding)
    highest = reference.numbers["outlier_score"].max()

    def build(sample: Sample) -> pd.DataFrame:
        masks = {**sample.shares, BEYOND: sample.numbers["outlier_score"] > highest}
        values: dict[str, NDArray[np.generic]] = {
            **sample.numbers,
            **{name: np.where(mask, "yes", "no") for name, mask in masks.items()},
            "embedding": kernel.likeness(sample.embedding, own=sample is reference),
        }
        return pd.DataFrame({column.name: values[column.name] for column in check.columns})

    return build(reference), build(window)


def _list_sites(check: DriftCheck) -> str:
    """Return a table of the sites as HTML, or nothing without any."""
    rows = ["".join(f"<td>{html.escape(cell)}</td>" for cell in row) for row in [SITE_HEADS, *list_sites(check)]]
    table = f'<table style="font-size: 13px; border-spacing: 12px 2px"><tr>{"</tr><tr>".join(rows)}</tr></table>'
    return table if check.sites else ""


def _add_verdict(page: str, check: DriftCheck) -> str:
    """Put pneumo's verdict on top, since Evidently's own counts columns."""
    facts = (
        f"{check.images} images, {check.window}; {check.model}:{check.version}; "
        f"reference: {check.reference_images} images"
    )
    if shares := describe_classes(check.columns):
        facts += f"; predicted {shares}"
    verdict = (
        '<div style="font: 16px/1.5 system-ui, sans-serif; margin: 16px 24px; padding: 12px 16px; color: #202124; '
        f'background: #fff; border-left: 6px solid {_COLOURS[check.verdict]}">'
        f'<b style="color: {_COLOURS[check.verdict]}">{html.escape(check.verdict.value.upper())}</b> '
        f"{html.escape(check.summary)}<br>"
        f"{_list_sites(check)}"
        f'<span style="font-size: 13px; color: #5f6368">{html.escape(facts)}; {check.time:%Y-%m-%d %H:%M} UTC. '
        f"The drift score is 1 - p after correction for {len(check.columns)} columns; above {1 - WARNING:g} is drift. "
        f"{html.escape(NOTICE[0].upper() + NOTICE[1:])}.</span></div>"
    )
    head, tag, rest = page.partition("<body")
    inside, end, body = rest.partition(">")
    return head + tag + inside + end + verdict + body
