"""The upload page's cards: predictions, problems, announcements."""

import re

import pytest

from pneumo.serving.model.predictor import Predictor

expect = pytest.importorskip("playwright.sync_api", reason="playwright is not installed (extra dev)").expect
pytestmark = pytest.mark.browser


def test_each_file_gets_its_own_card_and_a_bad_one_spoils_no_other(screen):
    screen.choose("one.png", ("bad.png", b"no image at all"), "two.png")
    cards = screen.settled(3)
    expect(cards.nth(0).locator(".name")).to_have_text("one.png")
    expect(cards.nth(0).locator(".label-text")).to_have_text(re.compile("NORMAL|PNEUMONIA"))
    expect(cards.nth(1).locator(".title")).to_have_text("Not an image")
    expect(cards.nth(1).locator(".fix")).to_have_text("Choose another file.")
    expect(cards.nth(2).locator(".scale-value")).to_be_visible()
    expect(screen.locate("#summary")).to_contain_text("3 images:")
    expect(screen.locate("#summary")).to_contain_text("1 without a result")


def test_a_card_says_what_the_model_says(screen, bundle, film):
    said = Predictor(bundle).predict_bytes(film(3))
    screen.choose(("three.png", film(3)))
    (card,) = screen.settled(1).all()
    expect(card.locator(".label-text")).to_have_text(said.label)
    shown = float(card.locator(".scale-value").inner_text().strip("<>%"))
    assert shown == pytest.approx(100 * said.probability, abs=0.1)
    expect(card.locator(".scale-foot")).to_contain_text("threshold of 40.0%")
    expect(card.locator(".outlier-note")).to_be_visible(visible=not said.in_distribution)
    expect(card.locator(".foot")).to_have_text(re.compile(r"^Analysed in [\d.]+\Wms$"))


def test_probability_is_drawn_against_the_threshold(screen):
    screen.answer_with(probability=0.25, label="NORMAL", probabilities={"NORMAL": 0.75, "PNEUMONIA": 0.25})
    screen.choose("a.png")
    screen.settled(1)
    track, fill, mark = (screen.locate(selector).bounding_box() for selector in (".track", ".fill", ".mark"))
    assert fill["width"] / track["width"] == pytest.approx(0.25, abs=0.01)
    assert (mark["x"] + mark["width"] / 2 - track["x"]) / track["width"] == pytest.approx(0.4, abs=0.01)
    expect(screen.locate(".scale-head")).to_have_text("Probability of PNEUMONIA25.0%")
    expect(screen.locate(".scale-foot")).to_have_text("Below the threshold of 40.0%")


def test_a_probability_that_rounds_to_its_threshold_is_told_apart_from_it(screen):
    screen.answer_with(probability=0.39999, threshold=0.40001)
    screen.choose("a.png")
    screen.settled(1)
    value = screen.locate(".scale-value").inner_text()
    assert value == "39.999%"
    expect(screen.locate(".scale-foot")).to_have_text("Below the threshold of 40.001%")


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
    for expected in ("#heat-all", "#download", "#clear", ".film", ".remove", ".show-heat"):
        press("Tab")
        expect(screen.locate(expected)).to_be_focused()
    press("Space")
    expect(screen.locate(".card .heat")).to_be_visible()
    press("Tab")
    press("ArrowRight")
    expect(screen.locate(".card .heat")).to_have_css("opacity", "0.65")
    screen.locate(".film").focus()
    press("Enter")
    expect(screen.locate("#viewer")).to_be_visible()
    expect(screen.locate("#viewer-heat")).to_be_visible()
    press("Escape")
    expect(screen.locate("#viewer")).to_be_hidden()
    expect(screen.locate(".film")).to_be_focused()
    press("Tab")
    press("Enter")
    expect(screen.locate("#choose")).to_be_focused()
    expect(screen.locate("#results")).to_be_hidden()


def test_results_are_announced(screen):
    live = screen.locate("#live")
    assert live.get_attribute("role") == "status"
    screen.answer_with()
    screen.choose("a.png")
    expect(live).to_have_text("a.png: PNEUMONIA, probability 92.3%.")
    screen.choose("b.png", "c.png")
    expect(live).to_have_text("Done. 3 images: 3 PNEUMONIA.")


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [320, 360, 1280])
def test_nothing_is_cut_off_on_any_screen(open_screen, scheme, width):
    screen = open_screen(viewport={"width": width, "height": 740}, color_scheme=scheme)
    screen.answer_with()
    screen.choose("a.png", f"{'a_very_long_name_without_any_space' * 3}.png", "bad.zip")
    screen.settled(3)
    screen.locate(".show-heat").first.click()
    expect(screen.locate(".card .heat").first).to_be_visible()
    assert screen.page.evaluate("document.documentElement.scrollWidth") <= width
    notice = screen.locate(".notice")
    screen.page.keyboard.press("End")
    expect(notice).to_be_in_viewport()
    small = screen.page.evaluate(
        """[...document.querySelectorAll("button, .switch")].filter((element) => {
          const { width, height } = element.getBoundingClientRect();
          return element.checkVisibility() && Math.min(width, height) < 24;
        }).map((element) => element.outerHTML)"""
    )
    assert not small
    brightness = screen.page.evaluate("getComputedStyle(document.body).backgroundColor.match(/\\d+/g).map(Number)")
    assert (sum(brightness) < 150) == (scheme == "dark")


def test_the_notice_is_there_with_an_enlarged_film_too(screen):
    screen.choose("a.png")
    screen.settled(1)
    screen.locate(".film").click()
    expect(screen.locate("#viewer").get_by_text("Research software, not a medical device")).to_be_in_viewport()


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
    (card,) = screen.settled(1).all()
    snapshot = card.aria_snapshot()
    for expected in (
        'button "Enlarge a.png"',
        'heading "a.png" [level=3]',
        'button "Remove a.png"',
        'button "Heat map of a.png"',
        "Do not rely on the prediction",
        "Uncertain",
        "Probability of PNEUMONIA",
        "At or above the threshold of 40.0",
    ):
        assert expected in snapshot
