"""Chip files: what is written is read back, a failure leaves nothing, and errors name file, line and key."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from small_chip import small_chip_data

from smesim.errors import ChipError, SmesimError
from smesim.hwmodel import library
from smesim.hwmodel.chip import Chip

texts = st.text(min_size=1, max_size=40)
names = st.from_regex(r"\A[A-Za-z][A-Za-z0-9_+-]{0,12}\Z")


@st.composite
def quantities(draw: st.DrawFn, unit: str) -> dict[str, Any]:
    value = draw(st.floats(min_value=1e-300, max_value=1e300))
    optional = {
        "reason": texts,
        "command": texts,
        "spread": st.floats(min_value=0.0, max_value=1e300),
        "repeats": st.integers(1, 10**6),
        "date": st.dates().map(str),
        "low": st.just(value),
        "high": st.floats(min_value=value, max_value=1e301),
    }
    chosen = draw(st.fixed_dictionaries({}, optional=optional))
    provenance = draw(st.sampled_from(["measured", "fitted", "data_sheet", "derived"]))
    return {"value": value, "unit": unit, "provenance": provenance, "source": draw(texts), **chosen}


@st.composite
def chips(draw: st.DrawFn) -> Chip:
    data = small_chip_data()
    data["name"] = draw(names)
    data["description"] = draw(st.text(max_size=60))
    data["host"] = draw(st.booleans())
    data["memory"]["capacity_bytes"] = draw(quantities("B"))
    data["caches"] = data["caches"][: draw(st.integers(2, 3))]
    core = data["clusters"][0]["core"]
    core["flop_per_s"] = draw(
        st.dictionaries(
            st.sampled_from(["f64", "f32", "f16", "bf16", "s8"]), quantities("FLOP/s"), min_size=1
        )
    )
    core["kernels"] = [
        {"name": name, "isa": draw(names), "parameters": {draw(names): draw(quantities("s"))}}
        for name in draw(st.lists(names, max_size=2))
    ]
    data["clusters"][0]["core_count"] = draw(st.integers(1, 4))
    data["clusters"][0]["matrix_units"] = data["clusters"][0]["matrix_units"][: draw(st.integers(0, 1))]
    return Chip.model_validate(data)


@given(chip=chips())
@settings(deadline=None, max_examples=60)
def test_what_is_written_is_read_back_equal(chip: Chip) -> None:
    text = library.dumps(chip)
    again = library.loads(text, where="text")
    assert again == chip
    assert library.dumps(again) == text
    assert library.fingerprint(again) == library.fingerprint(chip)


@given(value=st.floats(allow_nan=False, allow_infinity=False), text=st.text(), key=texts)
def test_the_writer_writes_toml(value: float, text: str, key: str) -> None:
    table = {key: value, "x": {"text": text, "flag": True, "count": 3}, "list": [{"a": [text, text]}, {}]}
    assert tomllib.loads(library.dump_table(table)) == table


def test_a_saved_chip_is_loaded_from_its_path(small: Chip, tmp_path: Path) -> None:
    path = tmp_path / "small.toml"
    library.save(small, path)
    assert library.load(path) == small
    assert library.load(str(path)) == small
    assert [f.name for f in tmp_path.iterdir()] == ["small.toml"]


def test_a_failed_save_leaves_the_old_file_and_nothing_else(
    small: Chip, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "small.toml"
    path.write_text("old", encoding="utf-8")

    def disk_full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", disk_full)
    with pytest.raises(SmesimError, match="No space left on device"):
        library.save(small, path)
    assert path.read_text(encoding="utf-8") == "old"
    assert [f.name for f in tmp_path.iterdir()] == ["small.toml"]


def test_the_fingerprint_is_of_the_content_not_of_the_text(small: Chip) -> None:
    shuffled = small_chip_data()
    shuffled["memory"] = dict(reversed(shuffled["memory"].items()))
    assert library.fingerprint(Chip.model_validate(shuffled)) == library.fingerprint(small)
    shuffled["memory"]["capacity_bytes"]["value"] *= 2
    assert library.fingerprint(Chip.model_validate(shuffled)) != library.fingerprint(small)


def test_an_unknown_name_gets_the_closest_and_all_the_others() -> None:
    with pytest.raises(ChipError, match=r"unknown chip 'aple-m4' \(did you mean 'apple-m4'\?\)") as caught:
        library.load("aple-m4")
    for name in library.names():
        assert name in str(caught.value)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "schema_version: missing"),
        (b'name = "x"\nschema_version = \n', "line 2"),
        (b'name = "\xff"', "not text"),
        (b"schema_version = 1\nname = 3\n", "name: 3 given"),
        (b"schema_version = nan", "schema_version: nan given; accepted: 1"),
    ],
)
def test_a_file_that_is_no_chip_says_where(content: bytes, message: str, tmp_path: Path) -> None:
    path = tmp_path / "broken.toml"
    path.write_bytes(content)
    with pytest.raises(ChipError) as caught:
        library.load(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert message in str(caught.value)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ChipError, match=r"nowhere\.toml: No such file"):
        library.load(tmp_path / "nowhere.toml")


@given(cut=st.floats(min_value=0.0, max_value=1.0, exclude_max=True))
@settings(deadline=None)
def test_a_truncated_file_is_refused_with_one_line(cut: float) -> None:
    text = library.dumps(Chip.model_validate(small_chip_data())).rstrip()
    part = text[: int(cut * text.rindex("[clusters.core.load_bytes_per_s]"))]
    with pytest.raises(ChipError) as caught:
        library.loads(part, where="cut.toml")
    assert str(caught.value).startswith("cut.toml: ")
    assert "\n" not in str(caught.value)
