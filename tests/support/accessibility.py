"""Checks of a page that Playwright shows: rules of WCAG 2.2 AA by axe-core, and its width on phones and desktops."""

from typing import Any

import pytest

WIDTHS = (390, 768, 1440)
_RULES = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa"]
_RUN = "options => axe.run(document, options)"
_WIDER = """() => [...document.querySelectorAll("body *")].filter((element) => {
  const { right, width } = element.getBoundingClientRect();
  return width > 0 && right > innerWidth + 1 && getComputedStyle(element).position !== "fixed";
}).slice(0, 5).map((element) => element.outerHTML.slice(0, 120))"""


def find_violations(page: Any) -> list[str]:
    """Return what breaks a rule on a page as it is shown: rule, element and axe-core's reason.

    Skips the test if axe-core is not installed.
    """
    axe = pytest.importorskip("axe_playwright_python.base", reason="axe-playwright-python is not installed (extra dev)")
    page.evaluate(axe.AXE_SCRIPT)
    options = {"runOnly": _RULES, "resultTypes": ["violations"], "preload": False}
    return [
        f"{violation['id']}: {node['html'][:160]} {node['failureSummary']}"
        for violation in page.evaluate(_RUN, options)["violations"]
        for node in violation["nodes"]
    ]


def check_page(page: Any, *, schemes: tuple[str, ...] = ("light", "dark"), height: int = 900) -> None:
    """Check that a page is never wider than the screen, and breaks no rule on a phone and a desktop in each scheme."""
    for width in WIDTHS:
        page.set_viewport_size({"width": width, "height": height})
        wide = page.evaluate("document.documentElement.scrollWidth")
        assert wide <= width, f"{wide} pixels wide on a screen of {width}: {page.evaluate(_WIDER)}"
    for scheme in schemes:
        page.emulate_media(color_scheme=scheme, reduced_motion="reduce")
        for width in (WIDTHS[0], WIDTHS[-1]):
            page.set_viewport_size({"width": width, "height": height})
            violations = find_violations(page)
            assert not violations, f"{scheme}, {width} pixels:\n" + "\n".join(violations)
