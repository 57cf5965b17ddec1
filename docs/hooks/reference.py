"""Fill the pages of `docs/reference/` from the program, so that nothing generated is committed.

A page says where with a line `<!-- generated: NAME -->`.
"""

import re
from collections.abc import Callable
from typing import Any

import reference_cli
import reference_config
import reference_http
import reference_settings

PARTS: dict[str, Callable[[], str]] = {
    "config": reference_config.markdown,
    "cli": reference_cli.markdown,
    "exit codes": reference_cli.exit_codes,
    "http": reference_http.markdown,
    "settings": reference_settings.markdown,
}


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Called by MkDocs for each page, before it becomes HTML."""
    return re.sub(r"^<!-- generated: (.+) -->$", lambda found: PARTS[found[1]](), markdown, flags=re.MULTILINE)
