"""How images come to the page, and that they stay there."""

import re
from typing import Any

import pytest

expect = pytest.importorskip("playwright.sync_api", reason="playwright is not installed (extra dev)").expect
pytestmark = pytest.mark.browser


def test_choosing_opens_the_dialogs_for_files_and_for_a_folder(screen):
    with screen.page.expect_file_chooser() as chosen:
        screen.locate("#choose").press("Enter")
    assert chosen.value.is_multiple()
    with screen.page.expect_file_chooser() as chosen:
        screen.locate("#choose-folder").press("Space")
    assert chosen.value.element.get_attribute("webkitdirectory") is not None


def test_a_folder_gives_its_images_with_their_paths_and_nothing_that_systems_left_there(screen, film, tmp_path):
    folder = tmp_path / "study"
    (folder / "a").mkdir(parents=True)
    for name in ("a/IM0001", "IM0001", ".DS_Store", "Thumbs.db", "DICOMDIR"):
        (folder / name).write_bytes(film())
    screen.page.set_input_files("#folder", folder)
    screen.settled(2)
    assert sorted(screen.locate(".name").all_inner_texts()) == ["study/IM0001", "study/a/IM0001"]


def test_a_dropped_folder_gives_its_images(screen, film, tmp_path):
    folder = tmp_path / "study"
    (folder / "series").mkdir(parents=True)
    for number in range(120):  # browsers list a folder a hundred at a time
        (folder / "series" / f"{number:03}").write_bytes(film())
    (folder / ".DS_Store").write_bytes(b"-")
    session = screen.page.context.new_cdp_session(screen.page)
    data = {"items": [], "files": [str(folder)], "dragOperationsMask": 1}
    for kind in ("dragEnter", "dragOver"):
        session.send("Input.dispatchDragEvent", {"type": kind, "x": 300, "y": 300, "data": data})
    expect(screen.locate("#drop")).to_have_class("drop over")
    session.send("Input.dispatchDragEvent", {"type": "drop", "x": 300, "y": 300, "data": data})
    expect(screen.locate("#drop")).to_have_class("drop")
    expect(screen.locate(".name")).to_have_count(120)
    names = screen.locate(".name").all_inner_texts()
    assert sorted(names) == [f"study/series/{number:03}" for number in range(120)]


@pytest.mark.parametrize("event", ["drop", "paste"])
def test_dropped_and_pasted_images_are_taken(screen, film, event):
    left_to_the_browser = screen.page.evaluate(
        """([event, bytes]) => {
          const data = new DataTransfer();
          data.items.add(new File([new Uint8Array(bytes)], "shot.png", {type: "image/png"}));
          const options = {bubbles: true, cancelable: true};
          return document.body.dispatchEvent(event === "drop"
            ? new DragEvent("drop", {...options, dataTransfer: data})
            : new ClipboardEvent("paste", {...options, clipboardData: data}));
        }""",
        [event, list(film())],
    )
    assert not left_to_the_browser  # which would open the file in place of the page
    screen.settled(1)
    expect(screen.locate(".name")).to_have_text("shot.png")
    assert screen.page.url.count("/") == 3


def test_text_can_be_dragged_and_pasted_as_ever(screen):
    prevented = screen.page.evaluate(
        """() => ["dragover", "drop", "paste"].map((name) => {
          const data = new DataTransfer();
          data.setData("text/plain", "words");
          const options = {bubbles: true, cancelable: true, dataTransfer: data, clipboardData: data};
          const event = name === "paste" ? new ClipboardEvent(name, options) : new DragEvent(name, options);
          document.body.dispatchEvent(event);
          return event.defaultPrevented;
        })"""
    )
    assert prevented == [False, False, False]


def test_files_that_cannot_be_taken_are_not_sent(screen):
    sent = []
    screen.page.on("request", lambda request: sent.append(request.url) if "/v1/" in request.url else None)
    screen.choose(("huge.png", bytes(3_000_000)), "study.zip")
    screen.settled(2)
    screen.open("huge.png")
    expect(screen.locate("#view .title")).to_have_text("Too large")
    expect(screen.locate("#view .detail")).to_have_text(re.compile(r"3\.0\WMB; the limit is 3\.0\WMB"))
    screen.open("study.zip")
    expect(screen.locate("#view .fix")).to_have_text("Unpack it and choose the folder.")
    assert not sent


def test_names_of_files_never_leave_the_page(screen, site):
    urls = []
    screen.page.on("request", lambda request: urls.append(request.url))
    site.bodies.clear()
    screen.choose("Mustermann_Erika_19640812.png")
    screen.settled(1)
    screen.locate(".show-heat").click()
    expect(screen.locate(".film-heat")).to_be_visible()
    assert sum(b"form-data" in body for body in site.bodies) == 2
    assert not [body for body in site.bodies if b"Mustermann" in body]
    assert not [url for url in urls if "Mustermann" in url]
    expect(screen.locate(".name")).to_have_text("Mustermann_Erika_19640812.png")


def test_a_name_is_text_whatever_it_says(screen):
    name = "<img src=x onerror=alert(1)>.png"
    screen.choose(name)
    screen.settled(1)
    expect(screen.locate(".name")).to_have_text(name)
    expect(screen.locate("#rows img")).to_have_count(1)


def test_reloading_clears_everything(screen):
    screen.choose("a.png")
    screen.settled(1)
    screen.page.reload()
    expect(screen.locate("#results")).to_be_hidden()
    expect(screen.locate(".row")).to_have_count(0)
    assert screen.page.evaluate("[sessionStorage.length, localStorage.length, document.cookie]") == [0, 0, ""]


def test_a_removed_image_is_gone_and_the_next_one_is_at_hand(screen):
    screen.choose("a.png", "b.png")
    screen.settled(2)
    screen.page.get_by_role("button", name="Remove a.png").click()
    expect(screen.locate(".name")).to_have_text(["b.png"])
    expect(screen.page.get_by_role("button", name="Remove b.png")).to_be_focused()
    assert [row["image"] for row in screen.downloaded()] == ["b.png"]
    screen.page.get_by_role("button", name="Remove b.png").focus()
    screen.page.keyboard.press("Enter")
    expect(screen.locate("#results")).to_be_hidden()
    expect(screen.locate("#choose")).to_be_focused()


def test_an_image_removed_on_its_way_is_not_waited_for(screen):
    held: list[Any] = []
    screen.page.route("**/v1/predict*", lambda route: held.append(route) if len(held) < 2 else route.continue_())
    screen.choose(*(f"{number}.png" for number in range(3)))
    expect(screen.locate(".row[data-state=sending]")).to_have_count(2)
    expect(screen.locate(".row[data-state=waiting] .name")).to_have_text(["2.png"])
    screen.page.get_by_role("button", name="Remove 0.png").click()
    expect(screen.locate(".row[data-state=done] .name")).to_have_text(["2.png"])
    expect(screen.locate(".row[data-state=sending] .name")).to_have_text(["1.png"])
