"""Keep a drift check in the prediction log, with Evidently's page where it can be drawn."""

from serving.drift.checking import Checked
from serving.drift.drawing import compose
from serving.errors import MachineError
from serving.log.checks import add_check
from serving.log.store import LogStore


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
