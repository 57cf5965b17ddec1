"""The upload page: the list, one image large, announcements."""

import contextlib
import re

import pytest

from pneumo.serving.contracts.figures import format_figure, format_probability
from pneumo.serving.model.predictor import Predictor

expect = pytest.importorskip("playwright.sync_api", reason="playwright is not installed (extra dev)").expect
pytestmark = pytest.mark.browser


def test_each_file_gets_its_own_row_and_a_bad_one_spoils_no_other(screen):
    screen.choose("one.png", ("bad.png", b"no image at all"), "two.png")
    rows = screen.settled(3)
    one, bad = rows.filter(has_text="one.png"), rows.filter(has_text="bad.png")
    expect(one.locator(".answer-text")).to_have_text(re.compile("NORMAL|PNEUMONIA"))
    expect(one.locator(".value")).to_have_text(re.compile(r"[<>]?[01]\.\d{3}"))
    expect(bad.locator(".outcome")).to_have_text("Not an imageNo result")
    expect(screen.locate("#view")).to_be_hidden()
    screen.open("bad.png")
    expect(screen.locate("#view .title")).to_have_text("Not an image")
    expect(screen.locate("#view .fix")).to_have_text("Choose another file.")
    expect(screen.locate("#summary")).to_contain_text("3 images:")
    expect(screen.locate("#summary")).to_contain_text("1 without a result")


def test_the_page_says_what_the_model_says(screen, bundle, film):
    said = Predictor(bundle).predict_bytes(film(3))
    screen.choose(("three.png", film(3)))
    screen.settled(1)
    expect(screen.locate(".label-text")).to_have_text(said.label)
    expect(screen.locate(".scale-value")).to_have_text(format_probability(said.probability))
    expect(screen.locate(".value")).to_have_text(format_probability(said.probability))
    expect(screen.locate(".scale-foot")).to_contain_text("threshold of 0.400")
    expect(screen.locate(".outlier-note")).to_be_visible(visible=not said.in_distribution)
    expect(screen.locate(".foot")).to_have_text(re.compile(r"^Analysed in [\d.]+\Wms$"))


def test_probability_is_drawn_against_the_threshold(screen):
    screen.answer_with(probability=0.25, label="NORMAL", probabilities={"NORMAL": 0.75, "PNEUMONIA": 0.25})
    screen.choose("a.png")
    screen.settled(1)
    track, fill, mark = (screen.locate(selector).bounding_box() for selector in (".track", ".fill", ".mark"))
    assert fill["width"] / track["width"] == pytest.approx(0.25, abs=0.01)
    assert (mark["x"] + mark["width"] / 2 - track["x"]) / track["width"] == pytest.approx(0.4, abs=0.01)
    expect(screen.locate(".scale-head")).to_have_text("Probability of PNEUMONIA0.250")
    expect(screen.locate(".scale-foot")).to_have_text("Below the threshold of 0.400")


def test_a_probability_that_rounds_to_its_threshold_is_told_apart_from_it(screen):
    screen.answer_with(probability=0.39999, threshold=0.40001)
    screen.choose("a.png")
    screen.settled(1)
    value = screen.locate(".scale-value").inner_text()
    assert value == "0.39999"
    expect(screen.locate(".scale-foot")).to_have_text("Below the threshold of 0.40001")


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({}, "The prediction set is PNEUMONIA alone. How often that is right was not measured."),
        (
            {"certainty": "uncertain", "probabilities": {"NORMAL": 0.3, "PNEUMONIA": 0.7}},
            "Uncertain: the threshold gives NORMAL, but only PNEUMONIA is not ruled out.",
        ),
        (
            {"certainty": "uncertain", "probabilities": {"NORMAL": 0.5, "PNEUMONIA": 0.5}},
            "Uncertain: no class is probable enough.",
        ),
        (
            {"model": {"name": "tiny", "version": "2", "positive_class": "PNEUMONIA"}, "certainty": "uncertain"},
            "Uncertain: the model does not settle on one class.",
        ),
    ],
    ids=["sure", "the other class", "no class", "a model the page does not know"],
)
def test_certainty_comes_in_plain_words(screen, changes, words):
    label = "NORMAL" if "threshold gives NORMAL" in words else "PNEUMONIA"
    screen.answer_with(**({"label": label} | changes))
    screen.choose("a.png")
    screen.settled(1)
    expect(screen.locate(".words li").first).to_have_text(words)


def test_what_is_odd_about_a_file_is_said_last(screen):
    screen.answer_with(remarks=["modality CT; a radiograph has modality CR or DX"])
    screen.choose("a.dcm")
    screen.settled(1)
    expect(screen.locate(".words li").last).to_have_text(
        "About the file: modality CT; a radiograph has modality CR or DX"
    )


@pytest.mark.parametrize(
    ("probabilities", "certainty", "words"),
    [
        ((0.5, 0.5), "uncertain", "Uncertain: neither class can be ruled out."),
        ((0.65, 0.35), "uncertain", "Uncertain: the threshold gives B, but only A is not ruled out."),
        ((0.1, 0.9), "certain", "The prediction set is B alone. A 0.8."),
        ((0.05, 0.9, 0.05), "certain", "The prediction set is B alone. C 0.7."),
        ((0.45, 0.5, 0.05), "uncertain", "Uncertain: A and B cannot be ruled out."),
    ],
)
def test_certainty_claims_no_more_than_the_measured_coverage(screen, probabilities, certainty, words):
    sets = {
        "A": {"limit": 0.6, "coverage": 0.8, "words": "A 0.8."},
        "B": {"limit": 0.5, "coverage": 0.9, "words": "B 0.9."},
        "C": {"limit": 0.6, "coverage": 0.7, "words": "C 0.7."},
    }
    said = {"label": "B", "certainty": certainty, "probabilities": dict(zip("ABC", probabilities, strict=False))}
    said["in_distribution"] = True
    script = "([said, sets]) => import('/static/wording.js').then(words => words.certainty(said, sets))"
    assert screen.page.evaluate(script, [said, sets]) == words


def test_an_out_of_distribution_image_is_warned_of_and_never_of_high_confidence(screen):
    screen.answer_with(in_distribution=False)
    screen.choose("a.png")
    screen.settled(1)
    expect(screen.locate(".outlier-note")).to_have_text(
        "Out of distribution: the image does not resemble the training X-rays. Do not rely on the prediction."
    )
    expect(screen.locate(".words")).to_have_text("Uncertain: the image is out of distribution.")
    expect(screen.locate("#summary")).to_contain_text("Out of distribution: 1.")
    expect(screen.locate("#live")).to_contain_text("Do not rely on the prediction")


def test_several_classes_are_all_shown_without_a_threshold(open_screen, other_bundle, serve_bundle):
    several = other_bundle(classes=["NORMAL", "BACTERIA", "VIRUS"], positive_class=None, thresholds={})
    with serve_bundle(several) as other:
        screen = open_screen(other.address)
        expect(screen.locate("#model")).to_contain_text("NORMAL, BACTERIA and VIRUS")
        screen.choose("a.png")
        screen.settled(1)
        expect(screen.locate(".scale")).to_have_count(3)
        expect(screen.locate(".scale-name").first).to_have_text(screen.locate(".label-text").inner_text())
        expect(screen.locate(".mark:visible, .scale-foot:visible")).to_have_count(0)
        screen.page.close()


def test_keys_alone_lead_from_the_top_to_the_heat_map_and_back(screen):
    press = screen.page.keyboard.press
    press("Tab")
    expect(screen.locate(".skip")).to_be_focused()
    expect(screen.locate(".skip")).to_be_in_viewport()
    press("Enter")
    press("Tab")
    expect(screen.locate("#choose")).to_be_focused()
    outline = screen.locate("#choose").evaluate(
        "e => getComputedStyle(e).outlineStyle + getComputedStyle(e).outlineWidth"
    )
    assert outline == "solid3px"
    press("Tab")
    press("Tab")
    expect(screen.locate("#sample")).to_be_focused()
    press("Enter")
    screen.settled(1)
    counts = [f".count:visible >> nth={number}" for number in range(screen.locate(".count:visible").count())]
    for expected in ("#download", "#print", "#clear", *counts, ".open", ".remove", "#view-close", ".film-stage"):
        press("Tab")
        expect(screen.locate(expected)).to_be_focused()
    press("+")
    press("i")
    expect(screen.locate(".film-picture")).to_have_css("transform", "matrix(1.25, 0, 0, 1.25, 0, 0)")
    expect(screen.page.get_by_role("button", name="Invert")).to_have_attribute("aria-pressed", "true")
    press("0")
    expect(screen.locate(".film-picture")).to_have_css("transform", "matrix(1, 0, 0, 1, 0, 0)")
    for expected in ("Level", "Window", "Zoom", "Invert", "Reset", "Heat map"):
        press("Tab")
        expect(screen.page.locator(":focus")).to_have_accessible_name(expected)
    press("Space")
    expect(screen.locate(".film-heat")).to_be_visible()
    press("Shift+Tab")
    press("Shift+Tab")
    press("Shift+Tab")
    press("ArrowRight")
    expect(screen.locate(".film-heat")).to_have_css("opacity", "0.61")
    press("Escape")
    expect(screen.locate("#view")).to_be_hidden()
    expect(screen.locate(".open")).to_be_focused()
    press("Tab")
    press("Enter")
    expect(screen.locate("#choose")).to_be_focused()
    expect(screen.locate("#results")).to_be_hidden()


def test_results_are_announced(screen):
    live = screen.locate("#live")
    assert live.get_attribute("role") == "status"
    screen.answer_with()
    screen.choose("a.png")
    expect(live).to_have_text("a.png: PNEUMONIA, probability 0.923.")
    screen.choose("b.png", "c.png")
    expect(live).to_have_text("Done. 3 images: 3 PNEUMONIA.")


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [320, 360, 1280])
def test_nothing_is_cut_off_on_any_screen(open_screen, scheme, width):
    screen = open_screen(viewport={"width": width, "height": 740}, color_scheme=scheme)
    screen.answer_with()
    screen.choose("a.png", f"{'a_very_long_name_without_any_space' * 3}.png", "bad.zip")
    screen.settled(3)
    assert screen.page.evaluate("document.documentElement.scrollWidth") <= width
    screen.open("a.png")
    screen.locate(".show-heat").click()
    expect(screen.locate(".film-heat")).to_be_visible()
    assert screen.page.evaluate("document.documentElement.scrollWidth") <= width
    notice = screen.locate(".notice")
    screen.page.keyboard.press("End")
    expect(notice).to_be_in_viewport()
    small = screen.page.evaluate(
        """[...document.querySelectorAll("button")].filter((element) => {
          const { width, height } = element.getBoundingClientRect();
          return element.checkVisibility() && Math.min(width, height) < 24;
        }).map((element) => element.outerHTML)"""
    )
    assert not small
    brightness = screen.page.evaluate("getComputedStyle(document.body).backgroundColor.match(/\\d+/g).map(Number)")
    assert (sum(brightness) < 150) == (scheme == "dark")


def test_the_notice_is_there_with_a_large_image_too(screen):
    screen.choose("a.png", "b.png")
    screen.settled(2)
    screen.open("b.png")
    expect(screen.locate("#view-name")).to_be_focused()
    expect(screen.locate(".film-stage")).to_be_in_viewport()
    expect(screen.locate(".notice")).to_be_in_viewport()


@pytest.mark.parametrize("reduced", [True, False])
def test_who_wants_less_motion_gets_none(open_screen, reduced):
    screen = open_screen(reduced_motion="reduce" if reduced else "no-preference")
    screen.choose("a.png")
    screen.settled(1)
    duration = screen.locate(".fill").evaluate("e => getComputedStyle(e).transitionDuration")
    assert (duration == "0s") == reduced


def test_what_a_screen_reader_is_told_of_an_answer(screen):
    screen.answer_with(certainty="uncertain", in_distribution=False)
    screen.choose("a.png")
    screen.settled(1)
    snapshot = screen.locate("#results").aria_snapshot()
    for expected in (
        'button "a.png"',
        'heading "a.png" [level=3]',
        'button "Remove a.png"',
        'button "Heat map"',
        'button "Out of distribution 1"',
        'img "Film of a.png"',
        "Do not rely on the prediction",
        "Uncertain",
        "Probability of PNEUMONIA",
        "At or above the threshold of 0.400",
    ):
        assert expected in snapshot


ANSWERS = {  # in the order of the list
    "positive.png": ("PNEUMONIA", 0.95, "certain", True),
    "strange.png": ("PNEUMONIA", 0.9, "certain", False),
    "doubtful.png": ("NORMAL", 0.35, "uncertain", True),
    "photo.png": ("NORMAL", 0.2, "certain", False),
    "bad.zip": None,
    "plain.png": ("NORMAL", 0.1, "certain", True),
    "plainest.png": ("NORMAL", 0.05, "certain", True),
}


@pytest.fixture
def thirty(screen):
    """The page with thirty images of the kinds above, which come in another order than that of the list."""
    names = [*ANSWERS, *(f"more-{number}.png" for number in range(23))][::-1]
    answers = iter([ANSWERS.get(name, ("NORMAL", 0.01, "certain", True)) for name in names if name != "bad.zip"])

    def answer(route):
        label, probability, certainty, inside = next(answers)
        screen.fulfill(
            route,
            label=label,
            probability=probability,
            probabilities={"NORMAL": 1 - probability, "PNEUMONIA": probability},
            certainty=certainty,
            in_distribution=inside,
        )

    screen.page.route("**/v1/predict*", answer)
    screen.choose(*names)
    screen.settled(30)
    return screen


def test_what_needs_attention_comes_first_and_counts_filter(thirty):
    names = thirty.locate(".row:visible .name")
    assert names.all_inner_texts()[:7] == list(ANSWERS)
    counts = ["All 30", "NORMAL 27", "PNEUMONIA 2", "Uncertain 1", "Out of distribution 2", "No result 1"]
    expect(thirty.locate(".count:visible")).to_have_text(counts, use_inner_text=True)
    for label, shown in {
        "PNEUMONIA 2": ["positive.png", "strange.png"],
        "Uncertain 1": ["doubtful.png"],
        "Out of distribution 2": ["strange.png", "photo.png"],
        "No result 1": ["bad.zip"],
    }.items():
        thirty.page.get_by_role("button", name=label).click()
        expect(names).to_have_text(shown)
    thirty.page.get_by_role("button", name="Remove bad.zip").click()
    expect(names).to_have_count(29)
    expect(thirty.page.get_by_role("button", name="All 29")).to_have_attribute("aria-pressed", "true")


def test_the_large_view_steps_through_the_rows_shown(thirty):
    thirty.page.get_by_role("button", name="PNEUMONIA 2").click()
    thirty.open("positive.png")
    name = thirty.locate("#view-name")
    expect(thirty.locate("#previous")).to_be_disabled()
    thirty.page.keyboard.press("j")
    expect(name).to_have_text("strange.png")
    expect(thirty.locate("[aria-current=true]")).to_have_text("strange.png")
    expect(thirty.locate("#next")).to_be_disabled()
    thirty.page.keyboard.press("j")
    expect(name).to_have_text("strange.png")
    thirty.page.keyboard.press("k")
    expect(name).to_have_text("positive.png")
    thirty.locate("#view-close").click()
    expect(thirty.page.get_by_role("button", name="positive.png", exact=True)).to_be_focused()


def test_on_paper_are_the_list_the_notice_and_the_model(thirty):
    thirty.open("positive.png")
    thirty.page.emulate_media(media="print")
    for selector in (".notice", "#summary", ".row >> nth=29", "#model"):
        expect(thirty.locate(selector)).to_be_visible()
    for selector in ("#drop", "#view", "#counts", "button.remove >> nth=0", "#download", ".reading"):
        expect(thirty.locate(selector)).to_be_hidden()


def test_a_row_costs_little(thirty):
    """Thirty rows are few elements, and a settled image changes no other row."""
    assert thirty.page.evaluate("document.querySelectorAll('#rows *').length") <= 30 * 15
    changed = thirty.page.evaluate(
        """async () => {
          const { List } = await import("/static/list.js");
          const rows = document.createElement("ol");
          const counts = document.createElement("div");
          const list = new List(rows, counts, {});
          const waiting = { state: "sending", words: "Sending", picture: null, prediction: null, problem: null };
          const results = [...Array(30).keys()].map((number) => ({ ...waiting, name: `${number}`, done: false }));
          list.add(results);
          const seen = new Set();
          const note = ({ target }) => seen.add(target.closest(".row") ?? target);
          const watch = new MutationObserver((records) => records.forEach(note));
          watch.observe(rows, { subtree: true, childList: true, attributes: true });
          Object.assign(results[7], { state: "error", words: "No result", problem: { title: "?" }, done: true });
          list.update(results[7]);
          await new Promise((resolve) => setTimeout(resolve));
          watch.disconnect();
          return [...seen].map((element) => element.tagName).sort();
        }"""
    )
    assert changed.count("LI") == 1, changed


def test_figures_agree_with_those_of_commands_and_reports(screen):
    values = [0.98046875, 0.0625, 0.3125, 0.0005, 0.9995, 0.9996, 1e-9, 0.0, 1.0, *(n / 256 for n in range(257))]
    script = "values => import('/static/wording.js').then(w => values.map(v => [w.figure(v), w.probability(v)]))"
    assert screen.page.evaluate(script, values) == [[format_figure(v), format_probability(v)] for v in values]
    assert format_figure(0.98046875) == "0.980"


def test_no_button_can_be_clicked_before_the_script_of_the_page_listens(browser, site):
    with contextlib.closing(browser.new_context()) as context:
        page = context.new_page()
        page.route("**/static/app.js", lambda route: route.abort())
        page.goto(site.address)
        for button in ("Choose images", "Choose a folder", "Try a sample"):
            expect(page.get_by_role("button", name=button)).to_be_disabled()
