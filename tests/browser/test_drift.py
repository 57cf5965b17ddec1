"""The drift dashboard in headless Chromium, over a log of a stable detector that became darker."""

import json
import re
from datetime import UTC, datetime, timedelta

import pytest

from tests.support.accessibility import WIDTHS, find_violations
from tests.support.waiting import until

expect = pytest.importorskip("playwright.sync_api", reason="playwright is not installed (extra dev)").expect
pytestmark = pytest.mark.browser


@pytest.fixture
def dashboard(open_screen, drifted):
    """Opens the dashboard with the browser's options; returns Playwright's page, and the console's complaints."""

    def open_(**options):
        screen = open_screen(drifted, **options)
        screen.page.goto(f"{drifted}/drift")
        if options.get("java_script_enabled", True):
            screen.page.wait_for_selector("html[data-drawn]")
        screen.page.complaints = screen.complaints
        return screen.page

    return open_


def test_the_verdict_comes_first_and_every_plot_is_drawn(dashboard):
    page = dashboard()
    expect(page.locator(".verdict h2")).to_have_text("Drift")
    expect(page.locator(".verdict .summary")).to_contain_text("than the reference")
    drawings = page.locator(".drawing")
    assert drawings.count() > 15
    for drawing in drawings.all():
        expect(drawing).to_be_visible()
        box = drawing.locator(".main-svg").first.bounding_box()
        assert box["width"] > 150
        assert box["height"] > 100
        assert drawing.locator("path, .point, .bars").count() > 0
    assert page.locator("details[open]").count() == 0


def test_the_page_breaks_no_rule_of_accessibility_on_any_screen(dashboard):
    page = dashboard()
    for width in WIDTHS:
        page.set_viewport_size({"width": width, "height": 900})
        for scheme in ("light", "dark"):
            page.emulate_media(color_scheme=scheme)
            assert find_violations(page) == []


def test_a_pointer_on_a_plot_tells_its_values(dashboard):
    page = dashboard()
    page.locator("#volume .nsewdrag").hover()
    expect(page.locator("#volume .hoverlayer .legend, #volume .hoverlayer .hovertext").first).to_contain_text(
        re.compile(r"\d")
    )


def test_values_on_plots_are_rounded_as_in_tables(open_screen, drifted):
    halves = [number / 16 for number in range(17)]  # 6.25% is 6.2% in Python, whose halves go to the even digit

    def replace_values(route):
        answer = route.fetch()
        before, plots, after = re.split(r"(?<=id=\"plots\">)(.*?)(?=</script>)", answer.text(), flags=re.DOTALL)
        told = json.loads(plots)
        for plot in told:
            for series in plot["series"] if plot["unit"] != "count" else ():
                series["y"] = [halves[place % 17] for place in range(len(series["y"]))]
        route.fulfill(response=answer, body=before + json.dumps(told) + after)

    page = open_screen(drifted).page
    page.route("**/drift", replace_values)
    page.goto(f"{drifted}/drift")
    page.wait_for_selector("html[data-drawn]")
    shown = page.evaluate(
        """() => {
          const plots = JSON.parse(document.getElementById("plots").textContent);
          return plots.filter(({ unit }) => unit !== "count").flatMap(({ id, unit }) => {
            const traces = document.getElementById(id).data.filter(({ hovertemplate }) => hovertemplate);
            return traces.map((trace) => [unit, trace.y, trace.hovertemplate]);
          });
        }"""
    )
    assert {unit for unit, _, _ in shown} >= {"share"}
    for unit, values, texts in shown:
        spec = ".1%" if unit == "share" else ".3f"
        assert [text.partition(" ")[0] for text in texts] == [f"{value:{spec}}" for value in values]


def test_a_table_says_what_a_plot_shows(dashboard):
    page = dashboard()
    figure = page.locator("figure").filter(has_text="Images per day").first
    figure.locator("summary").click()
    counts = [int(text) for text in figure.locator("td.n").all_inner_texts()]
    assert counts == page.evaluate("JSON.parse(document.getElementById('plots').textContent)[0].series[0].y")


def test_evidentlys_report_opens_in_place_in_a_sandbox_and_draws(dashboard, drifted):
    page = dashboard()
    page.get_by_role("link", name="Open the report of").first.click()
    page.wait_for_selector("html[data-drawn]")
    frame = page.frame_locator("iframe")
    expect(frame.get_by_text("Dataset Drift", exact=True)).to_be_visible()
    expect(frame.get_by_text("Research software, not a medical device")).to_be_visible()
    (inner,) = [each for each in page.frames if "/drift/reports/" in each.url]
    assert inner.evaluate("self.origin") == "null"
    reached = f"fetch('{drifted}/v1/model').then(() => 'reached', () => 'refused')"
    assert not page.complaints
    assert inner.evaluate(reached) == "refused"
    until(lambda: page.wait_for_timeout(20) or any("connect-src" in text for text in page.complaints))
    page.complaints.clear()
    assert page.evaluate("location.hash") == "#opened"
    page.get_by_role("link", name="Close").click()
    expect(page.locator("iframe")).to_have_count(0)


def test_a_range_of_days_is_chosen_with_the_form(dashboard, drifted):
    page = dashboard()
    yesterday = (datetime.now(UTC) - timedelta(days=1)).date().isoformat()
    page.get_by_role("textbox", name="From").fill(yesterday)
    page.get_by_role("textbox", name="To").fill(yesterday)
    page.get_by_role("button", name="Show").click()
    page.wait_for_selector("html[data-drawn]")
    expect(page.locator("figcaption").first).to_have_text("Images per hour")
    expect(page.locator("#volume")).to_be_visible()


def test_all_of_it_can_be_reached_with_the_keyboard(dashboard):
    page = dashboard()
    reached = []
    for _ in range(14):
        page.keyboard.press("Tab")
        reached.append(
            page.evaluate("document.activeElement.tagName + ' ' + (document.activeElement.name ?? '')").strip()
        )
        if len(reached) > 2:
            outline = page.evaluate("getComputedStyle(document.activeElement).outlineStyle")
            assert outline != "none", reached
    assert reached[0] == "A"  # skips to the content
    assert {"SELECT version", "INPUT from", "INPUT to", "BUTTON"} <= set(reached)
    page.locator("summary").first.focus()
    page.keyboard.press("Enter")
    expect(page.locator("details").first).to_have_attribute("open", "")


def test_without_a_script_tables_stand_where_plots_would(dashboard):
    page = dashboard(java_script_enabled=False)
    expect(page.locator(".drawing").first).to_be_hidden()
    for table in page.locator("figure table").all():
        expect(table).to_be_visible()
    page.get_by_role("button", name="Show").click()
    expect(page.locator(".verdict h2")).to_have_text("Drift")


@pytest.mark.parametrize("width", [360, 800])
def test_nothing_is_wider_than_a_small_screen(dashboard, width):
    page = dashboard(viewport={"width": width, "height": 740})
    assert page.evaluate("document.documentElement.scrollWidth") == width
    expect(page.locator(".verdict h2")).to_be_in_viewport()


def test_plots_follow_the_colours_of_the_screen(dashboard):
    page = dashboard(color_scheme="dark")
    colour = "getComputedStyle(document.querySelector('#volume .point path')).fill"
    assert page.evaluate(colour) == "rgb(125, 189, 240)"
    page.emulate_media(color_scheme="light")
    until(lambda: page.evaluate(colour) == "rgb(11, 90, 143)")
