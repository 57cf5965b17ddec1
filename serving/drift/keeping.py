"""Keep a drift check in the prediction log, with Evidently's page where it can be drawn."""

from pneumo.serving.contracts.errors import MachineError
from pneumo.serving.drift.check import Checked
from pneumo.serving.drift.evidently_page import compose
from pneumo.serving.drift.stored_checks import add_check
from pneumo.serving.predictions.store import LogStore


def keep(store: LogStore, checked: Checked, *, without_page: bool = False) -> str:
    """Draw and store a check, for `/drift` and for Evidently's own pages.

    Args:
        store: The log.
        checked: The check with what it compared.
        without_page: Whether the verdict alone is kept where Evidently is not installed.

    Returns:
        The check's id.

    Raises:
        MachineError: Evidently is not installed.
        SQLAlchemyError: The database is away; nothing was stored.
    """
    page = record = None
    if checked.check.columns:
        try:
            drawing = compose(checked.check, checked.reference, checked.window)
        except MachineError:
            if not without_page:
                raise
        else:
            page, record = drawing.page, drawing.record
    return add_check(store, checked.check, page, record)
