"""Time until a case browser shows its first grid, and frames while it scrolls, in Chromium from a disk.

    python benchmarks/cases.py FOLDER

FOLDER is one that `pneumo cases` wrote. Five openings of the page; then ten seconds each without scrolling, and of
scrolling at 3,000 pixels a second as a grid and as a table. Chromium draws without a graphics card here.
"""

import argparse
import shutil
import statistics
from pathlib import Path

from playwright.sync_api import sync_playwright

OPENINGS = 5
READY = """async () => {
  while (!document.querySelector("[data-position]")) await new Promise(requestAnimationFrame);
  const addresses = [...document.querySelectorAll(".thumb")].map((each) => each.style.backgroundImage.slice(5, -2));
  await Promise.all([...new Set(addresses)].map((src) => Object.assign(new Image(), { src }).decode()));
  await new Promise(requestAnimationFrame);
  return performance.now() / 1000;
}"""
SCROLL = """async () => {
  const scroller = document.getElementById("scroller");
  const frames = [];
  scroller.scrollTop = 0;
  let last = await new Promise(requestAnimationFrame);
  while (frames.reduce((sum, each) => sum + each, 0) < 10000) {
    const now = await new Promise(requestAnimationFrame);
    scroller.scrollTop += 3 * (now - last);
    if (scroller.scrollTop + scroller.clientHeight >= scroller.scrollHeight - 1) scroller.scrollTop = 0;
    frames.push(now - last);
    last = now;
  }
  return frames;
}"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    address = (parser.parse_args().folder.resolve() / "index.html").as_uri()
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        times = []
        for _ in range(OPENINGS):
            page = browser.new_page(viewport={"width": 1440, "height": 900})
            page.goto(address, wait_until="commit")
            times.append(page.evaluate(READY))
            count = page.locator("#count").inner_text()
            if len(times) < OPENINGS:
                page.close()
        print(f"{count}; first grid after {statistics.median(times):.2f} s ({min(times):.2f} to {max(times):.2f})")
        for view in ("idle", "grid", "table"):
            if view == "idle":  # what this machine can do at the moment
                frames = sorted(page.evaluate(SCROLL.replace("3 * (", "0 * (")))
            else:
                page.click(f"#{view}")
                frames = sorted(page.evaluate(SCROLL))
            late = sum(each > 34 for each in frames) / len(frames)
            print(
                f"{view}: {len(frames)} frames in 10 s, median {statistics.median(frames):.1f} ms, "
                f"95% within {frames[int(0.95 * len(frames))]:.1f} ms, {late:.1%} later than two frames of 60 Hz"
            )
        browser.close()


if __name__ == "__main__":
    main()
