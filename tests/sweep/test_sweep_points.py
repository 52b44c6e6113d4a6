"""Sweep files and the points they stand for: numbering, ranges, samples, conditions, and errors with their lines."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from smesim.errors import SweepError
from smesim.sweep import Points, Sweep, parse_sweep

HEAD = 'schema_version = 1\nname = "test"\n'
BASE = '[base]\nmodel = "smollm2-135m"\nchip = "apple-m4"\nphase = "prefill"\n'


def sweep(text: str) -> Sweep:
    return parse_sweep(HEAD + text, "test.toml")


def values(text: str, key: str) -> list[object]:
    points = Points(sweep(text))
    return [point.values[key] for point in points.between(0, points.count)]


def test_points_are_all_combinations_with_the_question_slowest_and_the_last_axis_fastest() -> None:
    asked = sweep(
        BASE + '[questions.a]\nsite = "q_proj"\n[questions.b]\nsite = "k_proj"\n'
        '[axes]\ntokens = [1, 2]\n"threads,weights" = [[1, "f32"], [2, "bf16"], [4, "f32"]]\n'
    )
    points = Points(asked)
    found = list(points.between(0, points.count))
    expected = itertools.product(("a", "b"), (1, 2), ((1, "f32"), (2, "bf16"), (4, "f32")))
    together = [(p.question, p.values["tokens"], (p.values["threads"], p.values["weights"])) for p in found]
    assert together == list(expected)
    assert [p.number for p in found] == list(range(12))
    assert found[7].values["site"] == "k_proj"
    assert found[7] == points.at(7)


@pytest.mark.parametrize(
    ("axis", "expected"),
    [
        ("{ range = [1, 9], step = 4 }", [1, 5, 9]),
        ("{ range = [1, 8], step = 3 }", [1, 4, 7]),
        ("{ range = [0, 1000], count = 5 }", [0, 250, 500, 750, 1000]),
        ("{ log = [1, 512], count = 10 }", [1, 2, 4, 8, 16, 32, 64, 128, 256, 512]),
        ("{ log = [1, 4], count = 9 }", [1, 2, 3, 4]),
    ],
)
def test_whole_ends_give_whole_numbers_each_once(axis: str, expected: list[int]) -> None:
    assert values(BASE + f"[axes]\ntokens = {axis}\n", "tokens") == expected


@settings(max_examples=20)
@given(st.sampled_from(["random", "sobol"]), st.integers(1, 70), st.integers(0, 5), st.integers(1, 50))
def test_a_sample_lies_between_its_ends_and_is_always_drawn_alike(method: str, count: int, seed: int, low: int) -> None:
    text = (
        BASE + f'[axes]\ntokens = {{ sample = [{low}, 100], scale = "log" }}\nbatch = {{ sample = [1, 4] }}\n'
        f'"model.rms_eps" = {{ sample = [0.5, 2.0] }}\n[sample]\nmethod = "{method}"\ncount = {count}\nseed = {seed}\n'
    )
    first, again = Points(sweep(text)), Points(sweep(text))
    assert first.count == count
    drawn = [point.values for point in first.between(0, count)]
    assert drawn[::-1] == [point.values for n in reversed(range(count)) if (point := again.at(n))]
    assert all(low <= v["tokens"] <= 100 and 1 <= v["batch"] <= 4 and 0.5 <= v["model.rms_eps"] <= 2 for v in drawn)
    assert all(type(v["tokens"]) is int and type(v["model.rms_eps"]) is float for v in drawn)


def test_sobol_fills_the_space_more_evenly_than_chance() -> None:
    text = BASE + "[axes]\ntokens = { sample = [0, 63] }\nbatch = { sample = [0, 63] }\n[sample]\ncount = 64\n"
    assert sorted(values(text, "tokens")) == list(range(64)) == sorted(values(text, "batch"))


def test_conditions_leave_gaps_in_the_numbers_and_see_absent_keys_as_none() -> None:
    head = 'conditions = ["tokens * batch <= 8 and not tokens == 2", "threads is None or question in [\'base\']"]\n'
    points = Points(sweep(head + BASE + "[axes]\ntokens = [1, 2, 4]\nbatch = [2, 4]\n"))
    found = list(points.between(0, points.count))
    assert [(p.number, p.values["tokens"], p.values["batch"]) for p in found] == [(0, 1, 2), (1, 1, 4), (4, 4, 2)]
    assert points.at(2) is None


@pytest.mark.parametrize(
    ("text", "line", "words"),
    [
        ("[base]\nmodel = 3\n", 4, "a text"),
        ("[base]\nmodle = 'x'\n", 4, "unknown key 'modle'"),
        ("[axes]\ntokens = [1, 'x']\n", 4, "a whole number"),
        ("[axes]\n'threads,tokens' = [[1, 2], [3]]\n", 4, "a list of 2 values"),
        ("[axes]\ntokens = [1]\n'tokens,batch' = [[1, 2]]\n", 5, "on two axes"),
        ("[axes]\ntokens = { log = [0, 4], count = 2 }\n", 4, "ends above 0"),
        ("[axes]\ntokens = { range = [1, 4] }\n", 4, "either step or count"),
        ("[axes]\n\ntokens = { sample = [1, 4] }\n", 5, "[sample]"),
        ("[sample]\nmethod = 'grid'\ncount = 3\n", 4, "sobol"),
        ("conditions = ['tokens.__class__()']\n", 3, "tokens.__class__()"),
        ("conditions = ['token > 1']\n", 3, "unknown key 'token'"),
        ("conditions = ['tokens >']\n", 3, "accepted"),
        ("[axes\n", None, "not TOML"),
    ],
)
def test_a_wrong_file_is_refused_with_its_line(text: str, line: int | None, words: str) -> None:
    with pytest.raises(SweepError) as refused:
        sweep(text)
    assert str(refused.value).startswith("test.toml" + (f", line {line}: " if line else ": "))
    assert words in str(refused.value)
