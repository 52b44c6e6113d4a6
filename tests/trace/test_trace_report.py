"""What people see: the terminal table and the HTML page."""

from __future__ import annotations

import io
import json
import re
import sys
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from smesim.errors import TraceError
from smesim.trace import ComparisonReport, Trace, compare
from smesim.trace.figures import error_budget, scatter, timeline
from smesim.trace.report import HardwareNumber, LabEntry, render_report, write_report
from smesim.trace.table import print_report
from smesim.trace.text import format_error, format_measured_ms, format_ms
from tests.trace import examples

_ENTRY = LabEntry(
    title="A test & its report",
    first_line="a test bench: no SME, so this shows the method <only>",
    asked="How long does a prompt of 16 tokens take?",
    trust=("The bench is made of numbers.",),
    numbers=(
        HardwareNumber("DRAM bandwidth", "25 GB/s", "measured", "smesim probe"),
        HardwareNumber("mode switch", "75 cycles", "guessed", "nobody"),
    ),
)


@pytest.fixture(scope="module")
def report() -> ComparisonReport:
    prefill = compare(
        examples.predicted(), examples.measured((1.0, 1.5, 0.5), foreign_load=0.07, notes=["fan was loud"])
    )
    decode = compare(examples.predicted(phase="decode:16"), examples.measured(phase="decode:16", stand_in=True))
    return ComparisonReport((prefill, decode))


@pytest.fixture(scope="module")
def page(report: ComparisonReport) -> str:
    return render_report(report, _ENTRY)


class _Tags(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.links: list[str] = []
        self.scripts = 0
        self.text: list[str] = []
        self._silent = False

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._silent = tag in ("script", "style")
        self.scripts += tag == "script"
        self.links += [value or "" for name, value in attrs if name in ("src", "href", "srcset", "action")]

    def handle_endtag(self, tag: str) -> None:
        self._silent = False

    def handle_data(self, data: str) -> None:
        if not self._silent:
            self.text.append(data)


def _read(page: str) -> _Tags:
    tags = _Tags()
    tags.feed(page)
    return tags


def test_page_loads_nothing_from_elsewhere(page: str) -> None:
    assert _read(page).links == []
    assert "@import" not in re.sub(r"<script>.*?</script>", "", page, flags=re.DOTALL)
    assert page.count("plotly.js v") == 1


def test_page_says_what_was_asked_predicted_and_measured_and_how_far_to_trust_it(page: str) -> None:
    text = " ".join(" ".join(_read(page).text).split())
    for expected in (
        "A test & its report",
        "no SME, so this shows the method <only>",
        "How long does a prompt of 16 tokens take?",
        "prefill:16 in 10000.0 ms; decode:16 in 10000.0 ms",
        "prefill:16 in 12000.0 ± 6000.0 ms (prediction -16.7%); decode:16 in 12000.0 ms",
        "The bench is made of numbers.",
        "fan was loud",
        "other programs took 7% of the machine",
        "decode:16: whether other programs ran beside the measurement was not observed",
        "decode:16: stand-in",
        "tiny, 1 layer really run",
        "q_proj",
        "measured minus predicted: +2e+03 ms",
    ):
        assert expected in text
    assert "guessed: nobody has measured it (1)" in text
    assert "● measured on the chip that it describes (1)" in text


def test_a_guess_does_not_look_like_a_measurement(page: str) -> None:
    assert '<span class="provenance guessed">? guessed</span>' in page
    assert '<span class="provenance measured">● measured</span>' in page


def test_page_is_deterministic_and_written_whole(report: ComparisonReport, page: str, tmp_path: Path) -> None:
    path = tmp_path / "report.html"
    write_report(report, _ENTRY, path)
    assert path.read_text(encoding="utf-8") == page
    assert [entry.name for entry in tmp_path.iterdir()] == ["report.html"]


def test_names_cannot_break_out_of_the_page() -> None:
    columns = {"op_name": ["</script><b>x"] * 4, "site": ["</script><b>x"] * 4}
    predicted = Trace.build(examples.meta("simulated"), examples.predicted_columns() | columns)
    measured = Trace.build(examples.meta("measured"), examples.measured_columns() | columns)
    page = render_report(ComparisonReport((compare(predicted, measured),)), _ENTRY)
    assert "</script><b>" not in page
    assert "&lt;/script&gt;&lt;b&gt;x" in page


def test_without_plotly_it_says_what_to_install(
    report: ComparisonReport, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "plotly.offline", None)
    with pytest.raises(TraceError, match=r"pip install 'smesim\[dashboard\]'"):
        write_report(report, _ENTRY, tmp_path / "report.html")
    assert not list(tmp_path.iterdir())


def test_timeline_has_predicted_lanes_above_measured_ones(report: ComparisonReport) -> None:
    figure = json.loads(timeline(report.phases[1]).to_json())
    assert figure["layout"]["yaxis"]["ticktext"] == [
        "predicted cpu0",
        "predicted cpu1",
        "measured cpu0",
        "measured cpu1",
    ]
    low, high = figure["layout"]["yaxis"]["range"]
    assert low > high
    figure = timeline(report.phases[1])
    norm = next(trace for trace in figure.data if trace.name == "rms_norm")
    assert norm.x[~np.isnan(norm.x)].tolist() == [0.0, 2000.0, 1000.0, 3000.0]
    assert norm.y[~np.isnan(norm.y)].tolist() == [0.0, 0.0, 2.0, 2.0]


def test_timeline_of_too_many_tasks_draws_operators() -> None:
    columns = examples.predicted_columns() | {"op": [0, 0, 1, 2], "op_kind": ["linear"] * 4}
    predicted = Trace.build(examples.meta("simulated"), columns)
    measured = Trace.build(
        examples.meta("measured"),
        examples.measured_columns() | {"op": [0, 0, 1, 2], "op_kind": ["linear"] * 4},
    )
    comparison = compare(predicted, measured)
    (every,), (merged,) = timeline(comparison).data, timeline(comparison, max_drawn_tasks=7).data
    assert len(every.x) == 3 * 8
    # The first two tasks, on one worker, are one operator.
    assert merged.x[:2].tolist() == [0.0, 6000.0]
    assert len(merged.x) == 3 * 6


def test_scatter_and_budget_show_the_numbers(report: ComparisonReport) -> None:
    marks = {
        label: (x, y)
        for trace in scatter(report.phases[0]).data
        if trace.mode == "markers+text"
        for label, x, y in zip(trace.text, trace.x, trace.y, strict=True)
    }
    assert marks == {"attn_norm": (3000.0, 2000.0), "q_proj": (6000.0, 5000.0), "lm_head": (3000.0, 3000.0)}
    totals = {trace.name: (trace.y[-1], trace.x[-1]) for trace in error_budget(report.phases[0]).data}
    assert totals == {
        "compute": ("total", 1000.0),
        "transfer": ("total", 0.0),
        "overhead": ("total", 500.0),
        "wait": ("total", 500.0),
    }


def test_terminal_table(report: ComparisonReport) -> None:
    output = io.StringIO()
    print_report(report, "a test bench [no SME]", Console(file=output, width=120))
    lines = output.getvalue().splitlines()
    assert lines[0] == "a test bench [no SME]"
    text = output.getvalue()
    assert "median of 3 runs ± interquartile range" in text
    assert re.search(r"q_proj +│ +5000\.0 +│ +6000\.0 ± 3000\.0 +│ +-16\.7% +│ +50\.0% +│ +compute", text)
    assert re.search(r"total +│ +10000\.0 +│ +12000\.0 ± 6000\.0 +│ +-16\.7%", text)
    assert re.search(r"lm_head +│ +3000\.0 +│ +3000\.0 +│ +\+0\.0%", text)
    assert "compute +1e+03, transfer +0, overhead +500, waiting +500" in text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.0123, "12.30"), (1.2345, "1234.5"), (0.00034567, "0.3457"), (float("nan"), "-"), (0.0, "0.0000")],
)
def test_milliseconds(seconds: float, text: str) -> None:
    assert format_ms(seconds) == text


def test_spread_has_the_decimals_of_its_time() -> None:
    assert format_measured_ms(0.0123, 0.0004567) == "12.30 ± 0.46"
    assert format_measured_ms(0.0123, float("nan")) == "12.30"
    assert (format_error(-0.0512), format_error(float("nan"))) == ("-5.1%", "-")
