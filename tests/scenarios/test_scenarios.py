"""Scenarios: files that are read or refused with their line, verdicts that follow from numbers, and a small run."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path

import pytest

from smesim.errors import ScenarioError
from smesim.hwmodel import library as chips
from smesim.scenarios import (
    Lever,
    Published,
    Times,
    crossing,
    judged,
    judged_pairs,
    load_scenario,
    names,
    parse_scenario,
    path_of,
    pull,
    record_of,
    scaled,
    stops_gaining,
)
from smesim.scenarios import library as scenario_library
from smesim.scenarios.pages import as_json, from_json, markdown
from tests.command_line import CommandLine

FILE = """schema_version = 1
name = "tiny"
title = "Tiny"
question = "How much faster?"
method = "Asked of the planner."
chips = ["apple-m4", "apple-m4-pro"]
models = ["smollm2-135m"]
phases = ["prefill:8"]

[numbers]
one = 1
several = [1, 2]

[published.gain]
says = "gain"
statistic = "range"
low = 1.5
high = 2.0
source = "a paper"

[levers.memory]
says = "bandwidth"
published = "gain"
paths = ["memory.bandwidth_bytes_per_s"]
factors = [0.5, 1]
"""
SCRIPT = """
from smesim.scenarios import Chart, Findings, Series, Table, judged

def study(s, times):
    rows = []
    for chip in s.chips:
        asked = (chip, s.models[0], s.phases[0])
        ours, cores = (times.planned(*asked, planner, site="q_proj") for planner in ("roofline", "cpu_only"))
        rows.append((chip, ours.time_s, cores.time_s / ours.time_s))
    bars = Series("x", tuple(s.chips), tuple(row[2] for row in rows))
    chart = Chart("gain", "bars", "chip", "x", (bars,), ((1.5, 2.0, "published"),))
    verdict = judged(s.published["gain"], [row[2] for row in rows])
    return Findings((Table("Products", ("chip", "ours, s", "x"), tuple(rows)),), (verdict,), (chart,))
"""


def test_every_scenario_has_a_file_a_script_and_a_page() -> None:
    assert set(names()) >= {"smepilot", "m1-amx-panels", "kleidiai-m4-pro"}
    for name in names():
        path = path_of(name)
        scenario = load_scenario(path)
        assert callable(scenario_library.study_of(path))
        page = path.parent.parent / "docs" / "scenarios" / f"{name}.md"
        assert page.read_text(encoding="utf-8").startswith(f"# {scenario.title}\n")
        kept = json.loads(page.with_suffix(".json").read_text(encoding="utf-8"))
        assert kept["name"] == name
        # A page is what its JSON says, of the file as it is now.
        assert page.read_text(encoding="utf-8") == markdown(scenario, from_json(kept, name))


def test_a_file_says_what_is_asked() -> None:
    scenario = parse_scenario(FILE, "tiny.toml")
    assert (scenario.number("one"), scenario.series("several")) == (1.0, (1.0, 2.0))
    assert scenario.published["gain"].band == (1.5, 2.0)
    assert scenario.narrowed("chips", ["apple-m4"]).chips == ("apple-m4",)
    with pytest.raises(ScenarioError, match=r"chips 'apple-m1'; accepted: apple-m4, apple-m4-pro"):
        scenario.narrowed("chips", ["apple-m1"])
    with pytest.raises(ScenarioError, match=r"key 'title' given; accepted: chips, models, phases"):
        scenario.narrowed("title", ["Tiny"])
    with pytest.raises(ScenarioError, match=r"numbers\.several is \(1\.0, 2\.0\); accepted: a number"):
        scenario.number("several")


@pytest.mark.parametrize(
    ("before", "after", "message"),
    [
        ('"apple-m4"', '"apple-m40"', r"tiny\.toml, line 6: chips: 'apple-m40' given; accepted: apple-m1, "),
        ('"prefill:8"', '"prefill"', r"line 8: phases: phase 'prefill': accepted: prefill:TOKENS"),
        ("title", "titel", r"title: Field required"),
        ('name = "tiny"', 'name = "tiny"\nspeed = 1', r"line 3: speed: Extra inputs"),
        ("low = 1.5\n", "", r"line 14: published\.gain: a range without low given; accepted: low and high"),
        ('source = "a paper"', 'records = ["m1-9999"]', r"record 'm1-9999' given; accepted: ids of the records"),
        ('source = "a paper"\n', "", r"no figures given; accepted: records, or high \(and low\) with a source"),
        ('published = "gain"', 'published = "loss"', r"published = 'loss' given; accepted: gain"),
        ("[0.5, 1]", "[0.5, 2]", r"factors \[0\.5, 2\.0\] given; accepted: ascending, and 1 among them"),
        ("[published.gain]", "[published.gain", r"tiny\.toml: not TOML: "),
    ],
)
def test_what_is_wrong_in_a_file_is_said_with_its_line(before: str, after: str, message: str) -> None:
    with pytest.raises(ScenarioError, match=message):
        parse_scenario(FILE.replace(before, after, 1), "tiny.toml")


def claim(statistic: str, **figures: float) -> Published:
    return Published.model_validate({"says": "gain", "statistic": statistic, "source": "s", **figures})


def test_verdicts_follow_from_the_numbers() -> None:
    between, at_most, value = claim("range", low=1.5, high=2.0), claim("maximum", high=3.0), claim("value", high=2.0)
    met = judged(between, [1.0, 1.6, 5.0], "here")
    assert (met.met, met.off) == (True, 0.0)
    assert "(here): predicted 1 to 5x, median 1.600, published 1.500 to 2x; 1 of 3 points" in met.says
    assert judged(between, [1.2]).off == pytest.approx(1.2 / 1.5 - 1)
    assert judged(between, [3.0]).off == pytest.approx(0.5)
    assert (judged(at_most, [1.0, 3.3]).met, judged(at_most, [1.0, 2.7]).met) == (True, False)
    assert "10% short" in judged(at_most, [1.0, 2.7]).says
    assert (judged(value, [2.2]).met, judged(value, [2.4]).met) == (True, False)
    assert judged_pairs(value, [(1.1, 1.0), (2.0, 1.0), (1.0, 1.0)]).off == pytest.approx(0.1)
    with pytest.raises(ScenarioError, match="no prediction to hold against 'gain'"):
        judged(value, [])
    ratio = Published(says="r", statistic="ratio", records=("m1llm-0001", "m1llm-0002"))
    first, second = (record_of(name) for name in ratio.records)
    assert first is not None
    assert second is not None
    assert first.value is not None
    assert second.value is not None
    assert ratio.values == (first.value / second.value,)
    assert ratio.sources == (first.source,)


def test_where_a_curve_stops_gaining_and_crosses() -> None:
    assert stops_gaining((1, 2, 4, 8), (1.0, 1.9, 1.95, 1.96)) == 2
    assert stops_gaining((1, 2, 4), (1.0, 2.0, 4.0)) is None
    assert crossing((1, 4), (1.0, 3.0), 2.0) == pytest.approx(2.0)
    assert crossing((1, 4), (1.0, 3.0), 3.5) is None


def test_a_lever_finds_the_factor_that_a_claim_needs() -> None:
    chip = chips.load("apple-m4")
    bandwidth = chip.memory.bandwidth_bytes_per_s.value
    paths = ("memory.bandwidth_bytes_per_s", "clusters.*.matrix_units.*.flop_per_s.f32", "memory.nothing")
    doubled = dict(scaled(chip, paths, 2.0))
    assert doubled["memory.bandwidth_bytes_per_s"] == 2 * bandwidth
    assert len(doubled) == 1 + sum(len(cluster.matrix_units) for cluster in chip.clusters)
    lever = Lever(says="bandwidth", published="gain", paths=paths[:1], factors=(0.25, 0.5, 1.0))
    pulled = pull(lever, claim("maximum", high=3.0), [("m4", chip)], lambda _, c: [1.0, bandwidth / c[0][1]])
    assert [row[3] for row in pulled.rows] == [4.0, 2.0, 1.0]
    assert "bandwidth of m4: 0.354 times the preset's would give 3x (as it is: 1x)" in pulled.verdicts[0].says
    never = pull(lever, claim("maximum", high=5.0), [("m4", chip)], lambda _, c: [1.0])
    assert "no factor that was tried reaches 5x" in never.verdicts[0].says
    assert "met as it is" in pull(lever, claim("value", high=1.0), [("m4", chip)], lambda _, c: [1.0]).verdicts[0].says


def test_a_scenario_runs_from_the_command_line_and_leaves_its_page(smesim: CommandLine) -> None:
    file = smesim.folder / "tiny.toml"
    file.write_text(FILE, encoding="utf-8")
    assert "accepted: a script with 'def study(scenario, times)'" in smesim("scenario", file).refusal()
    file.with_suffix(".py").write_text(SCRIPT, encoding="utf-8")
    out = smesim.folder / "out"
    found = smesim("scenario", file, "--only", "chips=apple-m4", "--json", "--out", out).json()
    ((chip, seconds, gain),) = found["tables"][0]["rows"]
    alone = Times().planned("apple-m4", "smollm2-135m", "prefill:8", "roofline", site="q_proj").time_s
    assert (chip, seconds) == ("apple-m4", alone)
    assert gain >= 1.0
    assert found["verdicts"][0]["met"] == (1.5 <= gain <= 2.0)
    scenario = parse_scenario(FILE, "tiny.toml").narrowed("chips", ["apple-m4"])
    kept = json.loads((out / "tiny.json").read_text(encoding="utf-8"))
    assert json.loads(json.dumps(as_json(scenario, from_json(kept, "tiny")))) == found == kept
    assert (out / "tiny.md").read_text(encoding="utf-8") == markdown(scenario, from_json(kept, "tiny"))
    assert "<h1>Tiny</h1>" in (out / "tiny.html").read_text(encoding="utf-8")


def test_what_the_command_cannot_do_is_refused(smesim: CommandLine) -> None:
    assert "unknown scenario 'smepilod' (did you mean 'smepilot'?)" in smesim("scenario", "smepilod").refusal()
    assert "--only 'chips'; accepted: KEY=VALUE" in smesim("scenario", "smepilot", "--only", "chips").refusal()
    file = smesim.folder / "other.toml"
    file.write_text(FILE, encoding="utf-8")
    assert "name = 'tiny' given; accepted: 'other'" in smesim("scenario", file).refusal()
    listed = smesim("scenario", "--json").json()
    assert [entry["name"] for entry in listed] == list(names())
    with pytest.raises(ScenarioError, match=r"kept: .*; accepted: JSON of 'smesim scenario NAME --out'"):
        from_json({"tables": []}, "kept")


def test_no_sweep_is_taken_for_a_scenario() -> None:
    folder = Path(path_of("smepilot")).parent
    sweeps = [path for path in folder.glob("*.toml") if "base" in tomllib.loads(path.read_text(encoding="utf-8"))]
    assert sweeps
    assert not {path.stem for path in sweeps} & set(names())
