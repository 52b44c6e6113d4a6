"""How long the dashboard takes to show itself, in a real browser: the first view, and a change on a timeline.

    python benchmarks/dashboard.py                  # needs playwright, and Debian's chromium
    python benchmarks/dashboard.py --repeats 5 --json

The first view is from the server's first answer until the page that opens is drawn, and after it the first picture, the
roofline, with no chip or plan seen before. A
change is a step of the slider of prompt lengths beside the timeline of llama-3.2-3b on apple-m4, to a length that has
not been predicted yet, until the new timeline is drawn. A machine without a graphics processor draws WebGL in software.
"""

import argparse
import json
import shutil
import time
from statistics import median

from playwright.sync_api import Page, sync_playwright

from dashboards.serving import LONGEST_S, served

FIRST_TARGET_S, CHANGE_TARGET_S = 3.0, 1.0
LENGTHS = (512, 256, 128, 64, 32)
IDLE = '[data-testid="stApp"][data-test-script-state="notRunning"]'
PICTURE = ".js-plotly-plot .nsewdrag"
TIMES_DRAWN = "Number(document.querySelector('.js-plotly-plot').dataset.drawn)"
"""How often the timeline, which stays where it is, has been drawn."""
SOFTWARE_GL = ("--no-sandbox", "--enable-unsafe-swiftshader")


def drawn(page: Page) -> None:
    """Wait for a picture, and for the script that makes it to have ended."""
    page.locator(PICTURE).first.wait_for()
    page.locator(IDLE).wait_for()


def first_view_s(page: Page, url: str) -> float:
    """The overview, with its tables."""
    begin = time.monotonic()
    page.goto(url)
    page.locator(IDLE).wait_for()
    page.get_by_test_id("stDataFrame").first.wait_for()
    return time.monotonic() - begin


def first_picture_s(page: Page) -> float:
    begin = time.monotonic()
    page.get_by_role("link", name="Roofline").click()
    drawn(page)
    return time.monotonic() - begin


def change_s(page: Page) -> float:
    """One step of the slider to the left."""
    before = page.evaluate(TIMES_DRAWN)
    slider = page.get_by_role("slider", name="Prompt, tokens")
    slider.focus()
    begin = time.monotonic()
    slider.press("ArrowLeft")
    page.wait_for_function(f"{TIMES_DRAWN} > {before}")
    page.locator(IDLE).wait_for()
    return time.monotonic() - begin


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=3, help="servers that are started, one after the other")
    parser.add_argument("--json", action="store_true")
    asked = parser.parse_args()
    first, pictures, changes = [], [], []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=list(SOFTWARE_GL))
        for _ in range(asked.repeats):
            with served() as url:
                page = browser.new_page(viewport={"width": 1280, "height": 800})
                page.set_default_timeout(LONGEST_S * 1e3)
                first.append(first_view_s(page, url))
                pictures.append(first_picture_s(page))
                page.goto(f"{url}/timeline?model=llama-3.2-3b&tokens={LENGTHS[0]}")
                drawn(page)
                changes += [change_s(page) for _ in LENGTHS[1:]]
                page.close()
        browser.close()
    found = {
        "first_view_s": median(first), "first_view_target_s": FIRST_TARGET_S, "worst_first_view_s": max(first),
        "first_picture_s": median(pictures),
        "change_s": median(changes), "change_target_s": CHANGE_TARGET_S, "worst_change_s": max(changes),
    }  # fmt: skip
    if asked.json:
        print(json.dumps(found))
        return
    print(f"first view: {median(first):.2f} s, at worst {max(first):.2f} s; target {FIRST_TARGET_S} s")
    print(f"first picture after it: {median(pictures):.2f} s, at worst {max(pictures):.2f} s")
    print(f"slider on the timeline: {median(changes):.2f} s, at worst {max(changes):.2f} s; target {CHANGE_TARGET_S} s")


if __name__ == "__main__":
    main()
