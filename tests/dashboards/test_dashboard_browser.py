"""The dashboard in a real browser: every page draws without an error, and its controls do what they say.

Needs playwright and Debian's package chromium; `make browser` runs it. Pictures of the pages are left in out/dashboard.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from dashboards.app import PAGES
from dashboards.serving import LONGEST_S, served
from smesim.trace import write_trace
from tests.trace import examples

pytestmark = pytest.mark.skipif("SMESIM_BROWSER" not in os.environ, reason="needs chromium; 'make browser' runs it")

ROOT = Path(__file__).resolve().parents[2]
SCREENSHOTS = ROOT / "out" / "dashboard"
SMALL = "model=smollm2-135m&layers=1&tokens=64"
SIZE = {"width": 1280, "height": 800}
IDLE = '[data-testid="stApp"][data-test-script-state="notRunning"]'


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a server that has a study to show."""
    folder = tmp_path_factory.mktemp("dashboard")
    for side, trace in (("predicted", examples.predicted()), ("measured", examples.measured())):
        write_trace(trace, folder / "files" / f"{side}-prefill-16.json")
    with served(["--files", str(folder / "files")], {"SMESIM_HOME": str(folder / "home")}) as address:
        yield address


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    playwright = pytest.importorskip("playwright.sync_api").sync_playwright().start()
    found = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
    yield found
    found.close()
    playwright.stop()


@pytest.fixture
def page(browser: Any) -> Iterator[Any]:
    """A page that may not have said anything on the console at the end."""
    shown = browser.new_page(viewport=SIZE)
    shown.set_default_timeout(LONGEST_S * 1e3)
    said: list[str] = []
    shown.on("pageerror", lambda error: said.append(str(error)))
    shown.on("console", lambda message: said.append(message.text) if message.type == "error" else None)
    yield shown
    assert said == []
    shown.close()


def settled(page: Any) -> None:
    """Wait until the script has run; it may not have ended with an exception."""
    page.wait_for_timeout(300)
    page.locator(IDLE).wait_for()
    assert page.get_by_test_id("stException").count() == 0


def choose(page: Any, label: str, value: str) -> None:
    page.get_by_test_id("stSelectbox").filter(has_text=label).locator("input").fill(value)
    page.get_by_role("option", name=value, exact=True).first.click()
    settled(page)


@pytest.mark.parametrize("name", PAGES)
def test_a_page_is_drawn(name: str, url: str, page: Any) -> None:
    page.goto(f"{url}/{name}?{SMALL}")
    page.get_by_role("heading", name=PAGES[name][0], exact=True).wait_for()
    settled(page)
    assert page.get_by_text("accepted:").count() == 0
    SCREENSHOTS.mkdir(parents=True, exist_ok=True)
    page.screenshot(path=SCREENSHOTS / f"{name}.png")


def test_a_slider_and_a_forced_mode_change_the_plan_and_the_address(url: str, page: Any) -> None:
    page.goto(f"{url}/plan?{SMALL}")
    settled(page)
    choose(page, "Operator", "down_proj")
    page.get_by_role("button", name="Force").click()
    page.get_by_text("Forced: down_proj to cpu").wait_for()
    assert "forced=down_proj%3Dcpu" in page.url
    page.get_by_role("button", name="Reset").click()
    page.get_by_text("Forced: down_proj to cpu").wait_for(state="detached")
    page.get_by_role("slider", name="Prompt, tokens").press("ArrowRight")
    page.wait_for_function("!location.search.includes('tokens=64')")
    settled(page)


def test_a_chip_is_edited_and_reset(url: str, page: Any) -> None:
    page.goto(f"{url}/what-if?{SMALL}&edits=memory.bandwidth_bytes_per_s=2e9")
    settled(page)
    page.get_by_text("What was edited is ? guessed.").wait_for()
    field = page.get_by_test_id("stNumberInput").filter(has_text="DRAM bandwidth").locator("input")
    field.fill("3000000000")
    field.press("Enter")
    settled(page)
    assert "3000000000" in page.url
    page.get_by_test_id("stMultiSelect").get_by_role("button", name="Clear all").click()
    page.get_by_text("The chip is the preset so far.").wait_for()
    assert "edits" not in page.url


def test_a_bad_file_gets_a_clear_message(url: str, page: Any) -> None:
    page.goto(f"{url}/files?{SMALL}")
    settled(page)
    page.locator("input[type=file]").set_input_files(
        {"name": "bad.json", "mimeType": "application/json", "buffer": b"{"}
    )
    page.get_by_text("bad.json: line 1: not JSON").wait_for()
    assert page.get_by_test_id("stException").count() == 0


def test_long_work_is_cancelled(url: str, page: Any) -> None:
    page.goto(f"{url}/ablation?model=llama-3.2-3b&tokens=512")
    settled(page)
    page.get_by_role("button", name="Run: ablation").click()
    page.get_by_role("button", name="Cancel").click()
    page.get_by_text("ablation: cancelled").wait_for()
    settled(page)
    assert page.get_by_role("button", name="Run: ablation").count() == 1  # it can be run again, and nothing is shown
    assert page.get_by_test_id("stPlotlyChart").count() == 0
