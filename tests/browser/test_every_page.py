"""Every page of the service and every report: no rule of WCAG 2.2 AA is broken, and nothing is cut off on a phone."""

from pathlib import Path

import pytest

from pneumo.pipeline.comparing import side_by_side
from pneumo.pipeline.evaluation import evaluate_run
from pneumo.serving.access.api_keys import add_key
from tests.pipeline.conftest import build_run
from tests.support.accessibility import check_page

pytest.importorskip("playwright.sync_api", reason="playwright is not installed (extra dev)")
pytestmark = pytest.mark.browser

LONG = "all => all.map((each) => each.innerText).filter((text) => text.length > 500)"
CUT = "all => all.filter((each) => each.scrollWidth > each.clientWidth).map((each) => each.ariaLabel)"


@pytest.fixture(scope="module")
def reports(tmp_path_factory) -> dict[str, Path]:
    """The reports of runs that were built without a training, by kind."""
    folder = tmp_path_factory.mktemp("reports")
    several = build_run(folder / "c", ("NORMAL", "BACTERIA", "VIRUS"), images=240, seed=3)
    runs = [build_run(folder / name, images=240, shift=shift, groups=True) for name, shift in (("a", 0.4), ("b", 1.6))]
    for run in (*runs, several):
        evaluate_run(run, resamples=20)
    comparison = folder / "comparison.html"
    side_by_side.write_page(comparison, side_by_side.compare_runs(*runs, resamples=20))
    return {"a run": runs[0].report, "a run of three classes": several.report, "a comparison": comparison}


@pytest.mark.parametrize("kind", ["a run", "a run of three classes", "a comparison"])
def test_a_report_is_accessible_and_fits_every_screen(browser, reports, kind):
    page = browser.new_page()
    page.goto(reports[kind].as_uri())
    page.evaluate("document.querySelectorAll('details').forEach((each) => { each.open = true; })")
    check_page(page)
    assert page.locator("p").evaluate_all(LONG) == []
    assert page.locator(".scroll").evaluate_all(CUT) == []
    page.set_viewport_size({"width": 390, "height": 900})
    assert page.get_by_role("region", name="metrics").evaluate_all(CUT) == []
    page.close()


def test_the_first_page_is_accessible_and_fits_every_screen(screen):
    check_page(screen.page)
    screen.locate("summary").click()
    screen.choose("a.png", f"{'a_long_name_without_any_space' * 3}.png", "bad.zip")
    screen.settled(3)
    check_page(screen.page)
    screen.open("a.png")
    screen.locate(".show-heat").click()
    screen.locate(".film-heat").wait_for()
    check_page(screen.page)
    screen.open("bad.zip")
    check_page(screen.page, schemes=("light",))


def test_the_sign_in_is_accessible_and_fits_every_screen(open_screen, bundle, serve_bundle, tmp_path):
    add_key(tmp_path / "keys.yaml", "ward")
    with serve_bundle(bundle, auth="on", keys=tmp_path / "keys.yaml") as locked:
        screen = open_screen(locked.address)
        screen.page.goto(f"{locked.address}/sign-in")
        check_page(screen.page)
        screen.page.goto(locked.address)
        screen.choose("a.png")
        screen.locate("#key-dialog").wait_for()
        check_page(screen.page)
        screen.page.close()
