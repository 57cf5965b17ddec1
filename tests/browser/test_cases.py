"""The case browser in Chromium, opened from a disk: list, filters, keys, one case large, and the tables it gives."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest

from pneumo.pipeline.cases.folder import Subject, write_cases
from pneumo.pipeline.cases.predictions import Predictions
from pneumo.pipeline.data.corrections import CorrectionFile
from pneumo.pipeline.data.importer import ImportSettings, import_dataset
from pneumo.pipeline.evaluation import evaluate_run
from pneumo.pipeline.ludwig.inference import make_predictions_frame
from pneumo.serving.images.preparation import encode_png
from pneumo.serving.model.predictor import Predictor
from tests.pipeline.conftest import build_run
from tests.support.accessibility import WIDTHS, check_page
from tests.support.bundles import make_bundle, make_network

expect = pytest.importorskip("playwright.sync_api", reason="playwright is not installed (extra dev)").expect
pytestmark = pytest.mark.browser

IMAGES = 150


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two class folders of noise with hostile names."""
    folder, random = tmp_path_factory.mktemp("source"), np.random.default_rng(1)
    for number in range(IMAGES):
        place = folder / ("<b>A" if number % 2 else "=B")
        place.mkdir(exist_ok=True)
        pixels = random.integers(0, 255, (32, 32)).astype(np.uint8)
        (place / f"=1+1, '<i>{number:03}.png").write_bytes(encode_png(pixels))
    return folder


@pytest.fixture(scope="module")
def cases(source: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a case browser: predictions are drawn, of two models."""
    place = tmp_path_factory.mktemp("cases")
    dataset = import_dataset(source, place / "data", ImportSettings(size=32), workers=1)
    both = []
    for seed in (1, 2):
        random = np.random.default_rng(seed)
        run = build_run(place / f"{seed}", images=30)
        truth = np.array([dataset.info.classes.index(row.label) for row in dataset.rows])
        logits = np.stack([np.zeros(len(truth)), random.normal(2 * truth - 1, 1)], axis=1).astype(np.float32)
        told = {"classes": dataset.info.classes, "positive": dataset.info.classes[1]}
        data = {"data": str(dataset.folder), "data_fingerprint": dataset.info.fingerprint}
        run.save(run.info().model_copy(update=told | data))
        make_predictions_frame(dataset.rows, logits).to_parquet(run.predictions)
        evaluate_run(run, resamples=20)
        both.append(Predictions.read(run))
    network, classes = make_network(1, 2, 0, maps=True), dataset.info.classes
    bundle = make_bundle(place / "bundle", network=network, classes=classes, positive_class=classes[1])
    predictor = Predictor(bundle, threads=1)
    assert write_cases(Subject(both[0], [predictor], both[1]), place / "cases")
    return place / "cases"


@pytest.fixture
def page(browser: Any, cases: Path) -> Iterator[Any]:
    """The page, opened from the disk; nothing may come from elsewhere, and no script may fail or be smuggled in."""
    context, complaints = browser.new_context(viewport={"width": 1280, "height": 900}), []
    page = context.new_page()
    page.set_default_timeout(30_000)
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("dialog", lambda dialog: complaints.append(dialog.message))
    own = (cases.as_uri(), "data:", "blob:")
    page.on("request", lambda request: None if request.url.startswith(own) else complaints.append(request.url))
    page.goto((cases / "index.html").as_uri())
    expect(page.locator("[data-position]").first).to_be_visible()
    yield page
    context.close()
    assert not complaints


def choose(page: Any, facet: str, value: str) -> int:
    """Choose a value of a filter; return how many cases the page then counts."""
    select = page.get_by_label(facet, exact=True)
    text = next(text for text in select.locator("option").all_inner_texts() if text.startswith(f"{value} ("))
    select.select_option(label=text)
    assert int(text.rpartition("(")[2].strip(")")) == count(page)
    return count(page)


def count(page: Any) -> int:
    return int(page.locator("#count").inner_text().split()[0])


def test_every_case_can_be_filtered_sorted_and_searched(page):
    assert count(page) == IMAGES
    assert choose(page, "Mistake", "mistake") + choose(page, "Mistake", "right") == IMAGES
    page.get_by_role("button", name="Show all").click()
    expect(page.locator("#count")).to_contain_text(f"{IMAGES} of {IMAGES} cases")
    assert choose(page, "Outcome", "false negative") > 0
    page.get_by_role("button", name="Show all").click()
    expect(page.locator("#count")).to_contain_text(f"{IMAGES} of")
    assert choose(page, "Second model", "right only in the first") > 0
    page.get_by_role("button", name="Show all").click()
    page.get_by_label("Search").fill("<i>007")
    expect(page.locator("#count")).to_contain_text("1 of 150")
    page.get_by_role("button", name="Show all").click()
    page.get_by_label("from").fill("0.9")
    page.get_by_label("Sort").select_option(label="Lowest probability")
    page.get_by_role("button", name="Table").click()
    shown = page.locator("tbody.rows tr td:nth-child(3)").all_inner_texts()
    assert shown == sorted(shown)
    assert min(float(text.strip("<>")) for text in shown) >= 0.9


def test_the_likeliest_label_errors_come_first_if_asked_for(page):
    likely = choose(page, "Label error", "likely")
    page.get_by_role("button", name="Show all").click()
    page.get_by_label("Sort").select_option(label="Likeliest label errors")
    page.get_by_role("button", name="Table").click()
    column = page.locator("thead th").all_inner_texts().index("Label error")
    shown = page.locator(f"tbody.rows tr td:nth-child({column + 1})").all_inner_texts()
    assert 0 < likely < len(shown)
    assert shown[: likely + 1] == ["likely"] * likely + ["unlikely"]


def test_only_what_is_near_the_screen_is_in_the_page(page):
    for view, most in (("Table", 60), ("Grid", 120)):
        page.get_by_role("button", name=view).click()
        page.locator("#scroller").evaluate("element => element.scrollTo(0, element.scrollHeight)")
        expect(page.locator(f"[data-position='{IMAGES - 1}']")).to_be_visible()
        assert page.locator("[data-position]").count() < most


def test_images_of_a_row_stand_level_whatever_is_written_below_them(page):
    cells = page.locator("#scroller li[data-position]").all()
    cells[0].locator(".line").first.evaluate("line => line.remove()")
    gaps = {round(cell.locator(".thumb").bounding_box()["y"] - cell.bounding_box()["y"]) for cell in cells}
    assert len(gaps) == 1


def test_keys_move_open_tag_and_close(page):
    page.keyboard.press("j")
    page.keyboard.press("j")
    page.keyboard.press("k")
    expect(page.locator("[data-position='1'] button")).to_be_focused()
    page.keyboard.press("Enter")
    expect(page.locator("#case-title")).to_contain_text("2 of 150: images/")
    page.keyboard.press("j")
    expect(page.locator("#case-title")).to_contain_text("3 of 150: images/")
    page.keyboard.press("3")
    expect(page.get_by_role("button", name="3 exclude")).to_have_attribute("aria-pressed", "true")
    page.keyboard.press("3")
    expect(page.get_by_role("button", name="3 exclude")).to_have_attribute("aria-pressed", "false")
    page.keyboard.press("Escape")
    expect(page.locator("[data-position='2'] button")).to_be_focused()
    expect(page.locator("#tagged")).to_have_text("No case is tagged.")


def test_letters_and_digits_do_nothing_once_they_are_switched_off(page):
    page.locator("summary", has_text="Keys").click()
    page.get_by_label("Letters and digits are shortcuts").uncheck()
    page.reload()
    page.locator("summary", has_text="Keys").click()
    expect(page.get_by_label("Letters and digits are shortcuts")).not_to_be_checked()
    expect(page.get_by_text("J and K move too")).to_be_hidden()
    page.locator("[data-position='0']").click()
    for key in ("j", "J", "3"):
        page.keyboard.press(key)
    expect(page.locator("#case-title")).to_contain_text("1 of 150: images/")
    expect(page.get_by_role("button", name="exclude", exact=True)).to_have_attribute("aria-pressed", "false")
    page.keyboard.press("Escape")
    page.keyboard.press("ArrowRight")
    page.keyboard.press("k")
    expect(page.locator("[data-position='1'] button")).to_be_focused()
    page.get_by_label("Letters and digits are shortcuts").check()
    page.locator("[data-position='1'] button").focus()
    page.keyboard.press("k")
    expect(page.locator("[data-position='0'] button")).to_be_focused()


def test_a_case_shows_image_heat_map_second_model_and_neighbours(page):
    page.locator("[data-position='0']").click()
    expect(page.locator("#verdict")).to_contain_text(": false")
    expect(page.locator("#scales h3")).to_contain_text("in")
    assert page.locator("#scales .mark").count() == 2
    assert page.locator(".film-picture").evaluate("image => image.decode().then(() => image.naturalWidth)") == 32
    page.get_by_role("button", name="Heat map").click()
    expect(page.locator("#heat-words")).to_contain_text("Regions that support")
    expect(page.locator(".film-heat")).to_be_visible()
    page.locator("#near button").first.click()
    expect(page.locator("#case-title")).not_to_contain_text("of 150")
    page.get_by_role("button", name="Close").click()
    page.get_by_label("Mistake", exact=True).select_option(index=2)
    page.locator("[data-position='0']").click()
    expect(page.locator("#heat-words")).to_contain_text("--serve")


def test_tags_leave_as_tables_that_an_import_takes_as_they_are(page, source, tmp_path):
    wanted = {}
    page.locator("[data-position='0']").click()
    for key in ("1", "2", "3", "4"):
        image = page.locator("#case-title").inner_text().partition(": ")[2]
        page.keyboard.press(key)
        page.get_by_label("Note").fill(f'=note {key}, "quoted"\nsecond line')
        wanted[image] = key
        page.get_by_role("button", name="Next").click()
    page.keyboard.press("Escape")
    expect(page.locator("#tagged")).to_contain_text("4 tagged or noted, 1 to exclude")
    page.reload()
    expect(page.locator("#tagged")).to_contain_text("4 tagged or noted, 1 to exclude")
    options: tuple[Literal["relabel", "exclude"], ...] = ("relabel", "exclude")
    files = []
    for option in options:
        with page.expect_download() as download:
            page.get_by_role("button", name=f"{option}.csv").click()
        download.value.save_as(tmp_path / download.value.suggested_filename)
        files.append(CorrectionFile.read(tmp_path / f"{option}.csv", option))
    settings = ImportSettings(size=32, corrections=tuple(files))
    again = import_dataset(source, tmp_path / "again", settings, workers=1)
    assert [done.listed for done in again.info.corrections] == [3, 1]
    (excluded,) = (image for image, key in wanted.items() if key == "3")
    assert len(again.rows) == IMAGES - 1
    classes = sorted(again.info.classes)
    rows = files[0].rows
    labels = {row.source: row.label for row in again.rows}
    for _, cells in rows:
        assert labels[cells["source"]] == cells["label"]
        key = wanted[cells["image"]]
        assert cells["note"] == f'=note {key}, "quoted"\nsecond line'
        if key in "12":
            assert cells["label"] == classes[int(key) - 1]
    assert excluded not in {cells["image"] for _, cells in rows}


def test_the_page_is_accessible_and_fits_every_screen(page):
    page.locator("details").evaluate_all("all => all.forEach((each) => { each.open = true; })")
    for view in ("Table", "Grid"):
        page.get_by_role("button", name=view).click()
        check_page(page)
    page.locator("[data-position='0']").click()
    page.get_by_role("button", name="Heat map").click()
    expect(page.locator(".film-heat")).to_be_visible()
    check_page(page)


def test_nothing_is_cut_off_on_a_phone_or_in_a_cell(page):
    cut = "all => all.filter((each) => each.scrollWidth > each.clientWidth).map((each) => each.textContent)"
    for width in WIDTHS:
        page.set_viewport_size({"width": width, "height": 900})
        page.get_by_label("Sort").select_option(label="Highest out-of-distribution score")
        expect(page.locator("[data-position='0'] .line").nth(2)).to_have_text("out-of-distribution")
        assert page.locator(".scroller .line").evaluate_all(cut) == []
    page.set_viewport_size({"width": 390, "height": 900})
    page.locator("[data-position='0']").click()
    tops = [page.locator(f"#{name}").bounding_box()["y"] for name in ("previous", "next", "close")]
    assert len(set(tops)) == 1
    right = page.locator(".facts").evaluate("element => element.getBoundingClientRect().right")
    inside = "all => Math.max(...all.map((each) => each.getBoundingClientRect().right))"
    assert page.locator(".facts *").evaluate_all(inside) <= right
