import itertools
import json
import re
from collections.abc import Iterator
from fnmatch import fnmatch

import numpy as np
import pytest
from fastapi.testclient import TestClient
from PIL import Image

from pneumo.pipeline.data import phantom
from pneumo.serving.contracts.population import PHANTOMS, Population
from pneumo.serving.contracts.settings import Settings
from pneumo.serving.http.app import create_app
from pneumo.serving.inference.service import State
from pneumo.serving.pages import upload_page
from tests.support.bundles import make_bundle, make_info
from tests.support.colours import WEB, contrast, palettes
from tests.support.html import Elements, text_of
from tests.support.paths import ROOT

NOTICE = "Research software, not a medical device"


@pytest.fixture(scope="module")
def client(bundle) -> Iterator[TestClient]:
    app = create_app(bundle, Settings(threads=1, reload_s=0))
    with TestClient(app, raise_server_exceptions=False) as client:
        client.portal.call(app.state.service.wait_until_loaded)
        yield client


def render(info=None, state=State.READY) -> str:
    return upload_page.render_upload_page(info, state, max_bytes=20_000_000)


def test_the_page_says_which_model_answers_and_how_good_it_was_found():
    metrics = {
        "splits": {
            "validation": {"images": 9, "metrics": {"auroc": {"value": 0.5, "low": 0.4, "high": 0.6}}},
            "test": {
                "images": 1261,
                "metrics": {
                    "auroc": {"value": 0.9876, "low": 0.9712, "high": 0.9951},
                    "sensitivity": {"value": 0.9, "low": None, "high": None},
                    "specificity": {"value": None, "reason": "no NORMAL images in this split"},
                },
            },
        }
    }
    text = text_of(render(make_info(name="lungs", version="v7", metrics=metrics, policy="sensitivity >= 0.95")))
    assert "lungs version v7" in text
    assert "Distinguishes PNEUMONIA from NORMAL" in text
    assert "0.988 on 1,261 test images; 95% confidence interval 0.971 to 0.995" in text
    assert "0.400 Called PNEUMONIA at 0.400 or above; policy: sensitivity &gt;= 0.95" in text
    assert "Sensitivity 0.900 of PNEUMONIA images correctly flagged" in text
    assert "Specificity" not in text


def test_the_model_box_names_data_set_size_version_and_date():
    metrics = {"data": "data", "splits": {"train": {"images": 4173, "patients": 2277, "metrics": {}}}}
    run = {"run": "20261130T190254Z-lungs-0e40"}
    text = text_of(render(make_info(metrics=metrics, provenance=run | {"source": "chest.tar"})))
    assert "Data set chest.tar 4,173 training images of 2,277 patients" in text
    assert "Trained 2026-11-30 on images of 28 x 28 pixels" in text
    assert "Data set data" in text_of(render(make_info(metrics=metrics, provenance=run)))
    without = text_of(render(make_info(metrics={}, provenance={})))
    assert "Data set" not in without
    assert "Trained 2" not in without


def test_a_banner_warns_of_a_model_of_phantoms():
    words = "trained on phantoms, which are synthetic images. Its answers mean nothing for real X-rays."
    assert words in text_of(render(make_info(population=PHANTOMS)))
    assert words not in text_of(render(make_info(population=Population(subjects="people"))))


def test_a_model_without_test_images_shows_what_validation_found():
    metrics = {"splits": {"validation": {"images": 80, "metrics": {"auroc": {"value": 0.9, "low": 0.8, "high": 0.95}}}}}
    assert "0.900 on 80 validation images" in text_of(render(make_info(metrics=metrics)))


@pytest.mark.parametrize(
    "metrics", [{}, {"splits": {}}, {"splits": 3}, {"splits": {"test": {"metrics": {"auroc": "?"}}}}]
)
def test_a_model_whose_quality_is_unknown_has_a_page(metrics):
    text = text_of(render(make_info(metrics=metrics)))
    assert "AUROC" not in text
    assert "Threshold" in text


def test_a_model_of_several_classes_shows_no_threshold():
    info = make_info(classes=["NORMAL", "BACTERIA", "VIRUS"], positive_class=None, thresholds={})
    text = text_of(render(info))
    assert "Distinguishes NORMAL, BACTERIA and VIRUS in" in text
    assert "in chest X-rays. Trained on images of a population that is not stated." in text
    assert "most probable class" in text
    assert "Threshold " not in text.partition("How to read a result")[0]


@pytest.mark.parametrize("split", ["test", "site", "validation"])
def test_the_page_tells_the_script_the_measured_coverage_of_each_class(split):
    metrics = {
        "coverage": {"value": 0.95, "low": 0.9, "high": 0.97},
        "coverage:NORMAL": {"value": 0.8, "low": 0.7, "high": 0.875},
        "coverage:PNEUMONIA": {"value": None, "reason": "no PNEUMONIA images in this split"},
    }
    conformal = {"level": 0.9, "limit": [0.25, 0.5]}
    page = Elements(render(make_info(conformal=conformal, metrics={"splits": {split: {"metrics": metrics}}})))
    (sets,) = (json.loads(attributes["data-sets"]) for _, attributes in page.found if "data-sets" in attributes)
    assert sets["PNEUMONIA"] == {"limit": 0.5, "coverage": None}
    if split == "validation":  # the limits were fitted to it
        assert sets["NORMAL"] == {"limit": 0.25, "coverage": None}
        return
    where = {"test": "the test split", "site": "the site"}[split]
    words = f"Prediction sets cover 0.800 (0.700 to 0.875) of NORMAL images of {where}."
    assert sets["NORMAL"] == {"limit": 0.25, "coverage": 0.8, "words": words}


def test_names_from_a_bundle_are_text_and_never_markup():
    hostile = '"><script>alert(1)</script>'
    info = make_info(classes=["NORMAL", hostile], positive_class=hostile, policy=f"max {hostile} $name ${{name}}")
    elements = Elements(render(info))
    assert [attributes for tag, attributes in elements.found if tag == "script"] == [
        {"type": "module", "src": "static/app.js"}
    ]
    assert "$name ${name}" in render(info)


def test_the_page_and_each_answer_name_the_population(tmp_path, png):
    population = Population(ages=(1, 5), views=["AP"], sites=["North & East"])
    trained = "rained on anterior-posterior chest X-rays of children of 1 to 5 years (North & East)"
    info = make_info(population=population)
    assert f"T{trained}.".replace("&", "&amp;") in text_of(render(info))
    app = create_app(make_bundle(tmp_path / "b", population=population), Settings(threads=1, reload_s=0))
    with TestClient(app) as client:
        client.portal.call(app.state.service.wait_until_loaded)
        for path in ("/v1/predict", "/v1/explain?format=json"):
            answer = client.post(path, content=png, headers={"Content-Type": "image/png"})
            assert answer.json()["notice"] == f"research software, not a medical device; t{trained}"


@pytest.mark.parametrize("state", list(State))
def test_without_a_model_the_page_says_why(state):
    html = render(None, state)
    assert f'data-state="{state}"' in html
    expected = {State.FAILED: "could not be loaded", State.DRAINING: "is stopping"}.get(state, "is loading")
    assert expected in text_of(html)
    assert NOTICE in html


def test_the_running_service_answers_with_the_page(client):
    answer = client.get("/")
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "text/html; charset=utf-8"
    assert answer.headers["cache-control"] == "no-cache"
    assert f'<aside class="notice" aria-label="Notice">{NOTICE}</aside>' in answer.text
    assert 'data-name="tiny" data-version="1" data-sets="{&quot;NORMAL&quot;: {&quot;limit&quot;: 0.4' in answer.text
    assert 'data-max-bytes="20000000"' in answer.text
    assert "20 MB" in answer.text


def test_the_page_and_its_files_answer_head_requests_too(client):
    for path in ("/", "/static/style.css", "/favicon.ico"):
        assert client.head(path).status_code == 200


def test_the_page_is_not_part_of_the_api(client):
    paths = client.get("/openapi.json").json()["paths"]
    assert not {"/", "/static/{name}", "/favicon.ico"} & paths.keys()


def test_the_page_is_safe_under_a_strict_content_security_policy():
    elements = Elements(render(make_info()))
    tags = [tag for tag, _ in elements.found]
    assert tags.count("script") == 1
    assert "style" not in tags
    assert not [name for _, attributes in elements.found for name in attributes if name == "style" or name[:2] == "on"]
    for script in WEB.glob("*.js"):
        content = script.read_text(encoding="utf-8")
        assert not re.search(r"\beval\(|new Function|innerHTML|outerHTML|insertAdjacentHTML|document\.write", content)
        assert not re.search(r"setAttribute\(\s*[\"']style", content)


def test_the_drift_dashboard_is_linked_where_a_log_is_kept():
    assert 'href="drift"' not in render()
    assert 'href="drift"' in upload_page.render_upload_page(None, State.READY, max_bytes=20_000_000, logs=True)


def test_nothing_is_loaded_from_elsewhere(client):
    elements = Elements(client.get("/").text)
    links = [link for link in elements.values("src", "href", "action", "poster", "srcset") if not link.startswith("#")]
    assert links
    for link in links:
        assert re.fullmatch(r"[a-z./]+", link), link
        assert client.get(f"/{link}").status_code == 200
    for path in itertools.chain(WEB.glob("*.js"), WEB.glob("*.css")):
        content = path.read_text(encoding="utf-8").replace('"http://www.w3.org/2000/svg"', "")
        assert not re.search(r"[\"'`(]\s*(?:\w+:)?//\w", content), path
        assert path.suffix != ".css" or not re.search(r"@import|url\(", content), path


def test_scripts_import_only_what_is_served(client):
    for script in WEB.glob("*.js"):
        for name in re.findall(r'from "\./([^"]+)"', script.read_text(encoding="utf-8")):
            assert client.get(f"/static/{name}").headers["content-type"] == "text/javascript; charset=utf-8"


def test_ids_are_unique_and_what_refers_to_one_finds_it():
    elements = Elements(render(make_info()))
    ids = elements.values("id")
    assert len(ids) == len(set(ids))
    references = [
        *elements.values("for", "aria-labelledby", "aria-describedby"),
        *(link[1:] for link in elements.values("href") if link.startswith("#")),
    ]
    assert set(references) <= set(ids)
    used = re.findall(r'byId\("([\w-]+)"\)', (WEB / "app.js").read_text(encoding="utf-8"))
    assert set(used) <= set(ids)


@pytest.mark.parametrize(
    ("name", "media_type"),
    [
        ("app.js", "text/javascript; charset=utf-8"),
        ("style.css", "text/css; charset=utf-8"),
        ("icon.svg", "image/svg+xml"),
        ("sample.png", "image/png"),
    ],
)
def test_static_files_come_with_a_tag_that_saves_sending_them_again(client, name, media_type):
    first = client.get(f"/static/{name}")
    assert first.content == (WEB / name).read_bytes()
    assert first.headers["content-type"] == media_type
    assert first.headers["cache-control"] == "no-cache"
    tag = first.headers["etag"]
    for header in (tag, f'"other", {tag}', f"W/{tag}", "*"):
        again = client.get(f"/static/{name}", headers={"If-None-Match": header})
        assert (again.status_code, again.content, again.headers["etag"]) == (304, b"", tag)
    assert client.get(f"/static/{name}", headers={"If-None-Match": '"other"'}).status_code == 200


@pytest.mark.parametrize("name", ["index.html", "model.html", "nothing.js", "..%2fapp.py", "%2e%2e/app.py", ""])
def test_nothing_else_is_served(client, name):
    assert client.get(f"/static/{name}").status_code == 404


def test_the_icon_is_where_icons_have_always_been(client):
    answer = client.get("/favicon.ico")
    assert answer.headers["content-type"] == "image/svg+xml"
    assert answer.content == (WEB / "icon.svg").read_bytes()


def test_every_file_of_the_page_is_packaged():
    patterns = re.findall(r"\*\*/(\*\.\w+)", (ROOT / "setup.py").read_text(encoding="utf-8"))
    for path in WEB.iterdir():
        assert any(fnmatch(path.name, pattern) for pattern in patterns), path.name


def test_the_sample_is_small_and_drawn_by_the_phantom_generator():
    path = WEB / "sample.png"
    assert path.stat().st_size < 40_000
    drawn = phantom.draw_radiograph("PNEUMONIA", np.random.default_rng(1), size=256)
    np.testing.assert_array_equal(np.asarray(Image.open(path)), drawn)


TEXT = [
    ("ink", "paper"),
    ("ink", "panel"),
    ("ink", "sunken"),
    ("muted", "paper"),
    ("muted", "panel"),
    ("muted", "sunken"),
    ("accent", "paper"),
    ("accent", "panel"),
    ("accent-strong", "paper"),
    ("on-accent", "accent"),
    ("on-accent", "accent-strong"),
    ("warn-ink", "warn-paper"),
    ("error-ink", "error-paper"),
    ("error-ink", "panel"),
    ("notice-ink", "notice-paper"),
    ("on-film", "film"),
]
PARTS = [
    ("edge", "paper"),
    ("edge", "panel"),
    ("edge", "track"),
    ("accent", "panel"),
    ("focus", "paper"),
    ("focus", "panel"),
    ("positive", "panel"),
    ("positive", "track"),
    ("negative", "panel"),
    ("negative", "track"),
    ("mark", "panel"),
    ("mark", "track"),
    ("warn-edge", "panel"),
    ("error-edge", "panel"),
]


def test_contrast_is_computed_as_wcag_defines_it():
    assert contrast("#000000", "#ffffff") == pytest.approx(21)
    assert contrast("#777777", "#ffffff") == pytest.approx(4.48, abs=0.005)


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize(("pairs", "least"), [(TEXT, 4.5), (PARTS, 3.0)], ids=["text", "parts"])
def test_contrast_reaches_wcag_aa(scheme, pairs, least):
    palette = palettes()[scheme]
    poor = {
        (front, back): round(ratio, 2)
        for front, back in pairs
        if (ratio := contrast(palette[front], palette[back])) < least
    }
    assert not poor


def test_every_colour_is_named_and_every_name_has_both_schemes():
    light, dark = palettes().values()
    assert light.keys() == dark.keys()
    reports = ROOT / "pipeline" / "evaluation" / "report", ROOT / "pipeline" / "sweep" / "report"
    pages = [path for folder in (WEB, *reports) for path in folder.glob("*.html")]
    sheets = [path for folder in (WEB, *reports) for path in folder.glob("*.css") if path.name != "colours.css"]
    used = set()
    for sheet in (*sheets, *pages):
        css = sheet.read_text(encoding="utf-8")
        local = {*re.findall(r"--([\w-]+): ", css), "share", "threshold", "heat", "low", "high"}
        used |= set(re.findall(r"var\(--([\w-]+)[),]", css)) - local
        assert sheet in pages or not re.findall(r"#(?!fff)[0-9a-f]{3,8}\b", css), sheet
    drawn = {name for name in light if name.startswith(("plot-", "series-"))}
    assert used | drawn == light.keys()


def test_the_documentation_has_the_colours_of_the_service():
    css = (ROOT / "docs" / "style.css").read_text(encoding="utf-8")
    assert set(re.findall(r"#[0-9a-f]{6}\b", css)) <= {
        colour for each in palettes().values() for colour in each.values()
    }
    light, dark = palettes().values()
    assert f"--md-typeset-a-color: {light['accent']}" in css
    assert f"--md-typeset-a-color: {dark['accent']}" in css
