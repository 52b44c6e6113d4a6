"""The dashboard in a real browser: every page draws without an error, and its controls do what they say.

Needs playwright and Debian's package chromium; `make browser` sets up the first and runs it. What is shown is a study
as `smesim demo` leaves it, of little, and qwen3-30b-a3b on apple-m4. Pictures of the pages are left in out/dashboard.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from dashboards.app import PAGES
from dashboards.serving import LONGEST_S, served
from smesim import workflow
from smesim.artefacts import write_study
from smesim.exec.device import Device
from smesim.workload import Phase, catalog
from tests.sim.chips import two_core_chip

CHROMIUM = shutil.which("chromium")
MISSING = [
    *([] if CHROMIUM else ["Debian's package chromium"]),
    *([] if importlib.util.find_spec("playwright") else ["playwright ('make browser' fetches it)"]),
]
pytestmark = pytest.mark.skipif(
    bool(MISSING) and "SMESIM_BROWSER" not in os.environ, reason=f"needs {' and '.join(MISSING)}"
)

ROOT = Path(__file__).resolve().parents[2]
SCREENSHOTS = ROOT / "out" / "dashboard"
SMALL = "model=smollm2-135m&layers=1&tokens=64"
MIXTURE = "model=qwen3-30b-a3b&chip=apple-m4&tokens=64"
STUDY = "demo/predicted-prefill-16.json"
SIZE = {"width": 1280, "height": 800}
DEMO = ROOT / "out" / "demo"
SOFTWARE_GL = ("--no-sandbox", "--enable-unsafe-swiftshader")
"""A machine of CI has no graphics processor; its browser draws WebGL in software, if it is told that it may."""
IDLE = '[data-testid="stApp"][data-test-script-state="notRunning"]'
A_TASK_TO_CLICK = """() => {
    const drawing = document.querySelector('.js-plotly-plot'), {xaxis, yaxis} = drawing._fullLayout;
    const {left, top} = drawing.getBoundingClientRect(), spots = drawing._fullData.find(line => line.mode == 'markers');
    return [left + xaxis._offset + xaxis.d2p(spots.x[0]), top + yaxis._offset + yaxis.d2p(spots.y[0])];
}"""
CHART = '[data-testid="stPlotlyChart"], .lasting'


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a server with one study to show, on a made-up chip so that nothing has to be probed."""
    folder = tmp_path_factory.mktemp("dashboard")
    here = Device.here()
    host = two_core_chip(cores=len(here.cores)).model_copy(
        update={"name": "host", "host": True, "machine": here.processor}
    )
    phases = [Phase.prefill(16), Phase.decode(16)]
    study = workflow.study(catalog.load("smollm2-135m"), phases, host, layers=2, repeats=3, refresh=False)
    write_study(study, folder / "files" / "demo")
    with served(["--files", str(folder / "files")], {"SMESIM_HOME": str(folder / "home")}) as address:
        yield address


@pytest.fixture(scope="module")
def context() -> Iterator[Any]:
    """A browser whose pages share what they have loaded."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=list(SOFTWARE_GL))
        yield browser.new_context(viewport=SIZE, accept_downloads=True)
        browser.close()


@pytest.fixture
def page(context: Any) -> Iterator[Any]:
    """A page that may not have said anything on the console at the end."""
    shown = context.new_page()
    shown.set_default_timeout(LONGEST_S * 1e3)
    said: list[str] = []
    shown.on("pageerror", lambda error: said.append(str(error)))
    shown.on("console", lambda message: said.append(message.text) if is_error(message) else None)
    yield shown
    shown.close()
    assert said == []


def is_error(message: Any) -> bool:
    """Streamlit looks for its server below the address of a page first, and a browser reports what is not there."""
    return message.type == "error" and not message.location["url"].endswith(("/_stcore/health", "/_stcore/host-config"))


def settled(page: Any) -> None:
    """Wait until the script has run and its controls are there; it may not have ended with an exception."""
    page.wait_for_timeout(200)
    page.locator(IDLE).wait_for()
    page.get_by_test_id("stSkeleton").first.wait_for(state="detached")
    assert page.get_by_test_id("stException").count() == 0


def visit(page: Any, address: str) -> None:
    page.goto(address)
    page.get_by_role("heading", level=1).wait_for()
    settled(page)
    assert page.get_by_text("accepted:").count() == 0


def drawn(page: Any) -> Any:
    """The first picture, when it is there."""
    chart = page.locator(CHART).first
    chart.locator(".xaxislayer-above:visible").first.wait_for()
    return chart


def choose(page: Any, label: str, value: str) -> None:
    box = page.get_by_test_id("stSelectbox").filter(has_text=label).locator("input")
    box.click()
    box.fill(value)
    page.get_by_role("option", name=value, exact=True).first.click()
    settled(page)


def keep_picture(page: Any, name: str) -> None:
    SCREENSHOTS.mkdir(parents=True, exist_ok=True)
    page.screenshot(path=SCREENSHOTS / f"{name}.png")


@pytest.mark.parametrize("name", PAGES)
def test_a_page_is_drawn(name: str, url: str, page: Any) -> None:
    """Those about a question with a mixture of experts, those about files with the study; nothing is cut off."""
    visit(page, f"{url}/{'' if name == 'overview' else name}?{MIXTURE}")
    assert page.get_by_role("heading", level=1).inner_text() == PAGES[name][0]
    if name in {"roofline", "timeline", "predicted-measured", "validation"}:
        drawn(page)
    if name in {"overview", "plan", "validation"}:
        page.get_by_test_id("stDataFrame").first.wait_for()
    assert page.evaluate("document.documentElement.scrollWidth") <= SIZE["width"]
    keep_picture(page, f"{name}-light")
    page.emulate_media(color_scheme="dark")
    page.wait_for_function("getComputedStyle(document.querySelector('.stApp')).colorScheme === 'dark'")
    settled(page)
    keep_picture(page, f"{name}-dark")


def test_a_slider_and_a_forced_mode_change_the_plan_and_the_address(url: str, page: Any) -> None:
    visit(page, f"{url}/plan?{SMALL}")
    choose(page, "Operator", "down_proj")
    page.get_by_role("button", name="Force").click()
    page.get_by_text("Forced: down_proj to cpu").wait_for()
    assert "forced=down_proj%3Dcpu" in page.url
    page.get_by_role("button", name="Reset").click()
    page.get_by_text("Forced: down_proj to cpu").wait_for(state="detached")
    page.get_by_role("slider", name="Prompt, tokens").press("ArrowRight")
    page.wait_for_function("location.search.includes('tokens=128') || !location.search.includes('tokens')")
    settled(page)
    with page.expect_download() as plan:
        page.get_by_role("button", name="JSON plan").click()
    assert '"planner": "roofline"' in Path(plan.value.path()).read_text()


def test_a_timeline_is_looked_at_closer_and_a_task_clicked(url: str, page: Any) -> None:
    visit(page, f"{url}/timeline?{SMALL}&look={STUDY}")
    drawn(page).locator('[data-title="Box Select"]').click()
    lanes = page.locator(CHART).first.locator(".nsewdrag").first.bounding_box()
    middle = lanes["y"] + lanes["height"] / 8
    page.mouse.move(lanes["x"] + lanes["width"] * 0.2, middle)
    page.mouse.down()
    page.mouse.move(lanes["x"] + lanes["width"] * 0.5, middle, steps=4)
    page.mouse.up()
    page.wait_for_function("location.search.includes('from-ms') && location.search.includes('to-ms')")
    settled(page)
    drawn(page)
    page.mouse.click(*page.evaluate(A_TASK_TO_CLICK))
    page.wait_for_function("location.search.includes('task=')")
    page.get_by_text("A solid frame is the task").wait_for()
    settled(page)
    page.get_by_test_id("stDataFrame").nth(1).wait_for()  # facts of both sides, and what the error is made of
    keep_picture(page, "timeline-task")
    drawn(page).hover()
    with page.expect_download() as picture:
        drawn(page).locator('[data-title*="png" i]').click()
    assert picture.value.suggested_filename == "timeline.png"
    assert Path(picture.value.path()).read_bytes().startswith(b"\x89PNG")
    with page.expect_download() as perfetto:
        page.get_by_role("button", name="Perfetto").click()
    assert "traceEvents" in Path(perfetto.value.path()).read_text()
    page.get_by_role("button", name="Whole run").click()
    page.wait_for_function("!location.search.includes('from-ms')")


def test_a_comparison_is_filtered_by_phase_and_kind(url: str, page: Any) -> None:
    visit(page, f"{url}/predicted-measured?{SMALL}&phases=decode-16&kinds=attention")
    drawn(page)
    assert page.get_by_test_id("stMetricValue").count() == 1
    phases = page.get_by_test_id("stMultiSelect").filter(has_text="Phases")
    phases.get_by_role("button", name="Clear all").click()
    page.wait_for_function("!location.search.includes('phases')")
    settled(page)
    assert page.get_by_test_id("stMetricValue").count() == 2


def test_a_chip_is_edited_and_reset(url: str, page: Any) -> None:
    visit(page, f"{url}/what-if?{SMALL}&edits=memory.bandwidth_bytes_per_s=2e9")
    page.get_by_text("What was edited is ? guessed.").wait_for()
    field = page.get_by_test_id("stNumberInput").filter(has_text="DRAM bandwidth").locator("input")
    field.fill("3000000000")
    field.press("Enter")
    page.wait_for_function("location.search.includes('3000000000')")
    settled(page)
    page.get_by_role("button", name="Reset").click()
    page.get_by_text("The chip is the preset so far.").wait_for()
    assert "edits" not in page.url
    page.get_by_role("button", name="Run: map").click()
    drawn(page)


def test_a_bad_file_gets_a_clear_message(url: str, page: Any) -> None:
    visit(page, f"{url}/files?{SMALL}")
    page.locator("input[type=file]").set_input_files(
        {"name": "bad.json", "mimeType": "application/json", "buffer": b"{"}
    )
    page.get_by_text("bad.json: line 1: not JSON").wait_for()
    assert page.get_by_test_id("stException").count() == 0
    choose(page, "Or a file in", "demo/chip.toml")
    page.get_by_test_id("stBaseButton-secondary").filter(has_text="Open").click()
    page.get_by_role("heading", name="demo/chip.toml").wait_for()


def test_long_work_is_cancelled(url: str, page: Any) -> None:
    visit(page, f"{url}/ablation?model=llama-3.2-3b&tokens=512")
    page.get_by_role("button", name="Run: ablation").click()
    page.get_by_role("button", name="Cancel").click()
    page.get_by_text("ablation: cancelled").wait_for()
    settled(page)
    assert page.get_by_role("button", name="Run: ablation").count() == 1  # it can be run again, and nothing is shown
    assert page.locator(CHART).count() == 0


def test_a_page_keeps_what_was_asked_while_another_is_looked_at(url: str, page: Any) -> None:
    """By keyboard alone: the links, the slider and the buttons can be reached with it."""
    visit(page, f"{url}/ablation?{SMALL}&budget=3")
    link = page.get_by_role("link", name="Roofline")
    link.focus()
    link.press("Enter")
    page.get_by_role("heading", name="Roofline", exact=True).wait_for()
    settled(page)
    assert "model=smollm2-135m" in page.url
    assert "budget" not in page.url
    page.get_by_role("link", name="Ablation").click()
    page.get_by_role("heading", name="Ablation", exact=True).wait_for()
    settled(page)
    assert "budget=3" in page.url


def test_the_browser_goes_back_to_the_page_before(url: str, page: Any) -> None:
    visit(page, f"{url}/plan?{SMALL}")
    page.get_by_role("link", name="Roofline").click()
    page.get_by_role("heading", name="Roofline", exact=True).wait_for()
    settled(page)
    page.go_back()
    page.get_by_role("heading", name="Plan", exact=True).wait_for()
    settled(page)
    assert "model=smollm2-135m" in page.url


@pytest.mark.skipif(not (DEMO / "comparison.json").is_file(), reason=f"'make demo' leaves what is shown in {DEMO}")
def test_what_the_demo_leaves_is_shown(page: Any) -> None:
    with served(["--files", str(DEMO.parent)]) as url:
        visit(page, url)
        page.get_by_text("demo, llama-3.2-3b, prefill").first.wait_for()
        keep_picture(page, "demo-overview")
        studies = sorted(DEMO.glob("predicted-*.json"))
        assert studies
        for study in studies:
            visit(page, f"{url}/timeline?look=demo/{study.name}")
            drawn(page)
            page.get_by_text("predicted: llama-3.2-3b").wait_for()
            keep_picture(page, f"demo-timeline-{study.stem}")
        page.get_by_role("switch", name="Every task").press("Space")
        page.wait_for_function("location.search.includes('every=yes')")
        drawn(page)
        visit(page, f"{url}/predicted-measured?study=demo")
        drawn(page)
        assert page.get_by_test_id("stMetricValue").count() == len(studies)
        keep_picture(page, "demo-predicted-measured")
        visit(page, f"{url}/files")
        choose(page, "Or a file in", "demo/chip.toml")
        page.get_by_test_id("stBaseButton-secondary").filter(has_text="Open").click()
        page.get_by_role("heading", name="demo/chip.toml").wait_for()
        page.goto("about:blank")  # or it would miss its server
