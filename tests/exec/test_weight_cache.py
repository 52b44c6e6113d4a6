"""Packed weights on disk: they spare packing, are what packing gives, and are used for what they were made of only."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from smesim.exec import loading, weight_cache
from smesim.exec import session as session_module
from smesim.exec.session import Session
from smesim.exec.weight_cache import SUFFIX, WeightCache
from smesim.workload import DType, digest
from smesim.workload.make_weights import make_weights
from tests.exec.native_models import CHIP, CORES, little, little_moe

TOKENS = np.array([[5, 6, 7]])
ROOM = 10**9


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A mixture of experts in blocks, with a last product in another format."""
    path = tmp_path_factory.mktemp("made") / "made.gguf"
    model = little_moe(vocab=300, d_model=64, head_dim=16, heads=4, d_expert=32, tied_embeddings=False)
    make_weights(model, "q4_0", path)
    return path


@pytest.fixture
def model(made: Path, tmp_path: Path) -> Path:
    return Path(shutil.copy(made, tmp_path / "model.gguf"))


def opened(path: Path, cache: WeightCache | None, **options: Any) -> tuple[Session, NDArray[np.float32]]:
    session = Session.open(path, CHIP, context=32, threads=CORES, cache=cache, **options)
    logits = session.prefill(TOKENS)
    session.settle()
    return session, logits


def entries(cache: WeightCache) -> list[Path]:
    return sorted(cache.folder.glob(f"*{SUFFIX}"))


def test_a_second_load_packs_nothing_and_computes_the_same(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = WeightCache(tmp_path / "kept", ROOM)
    _, expected = opened(model, None)
    first, logits = opened(model, cache)
    assert (logits == expected).all()
    assert (first.timings.packed_before, first.notices, len(entries(cache))) == (False, (), 1)
    monkeypatch.setattr(session_module, "load_weights", None)
    for verify in (False, True):
        again, logits = opened(model, WeightCache(tmp_path / "kept", ROOM, verify=verify))
        assert (logits == expected).all()
        assert (again.timings.packed_before, again.notices) == (True, ())
        assert [str(c) for c in again.conversions] == [str(c) for c in first.conversions]
    assert len(entries(cache)) == 1


def test_what_else_would_be_packed_has_an_entry_of_its_own(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Other formats, other kernels, and weights that differ by a byte, in a file of the same size and date."""
    pytest.importorskip("gguf", reason="weights in blocks are converted by the package gguf")
    cache = WeightCache(tmp_path / "kept", ROOM)
    opened(model, cache)
    same = Path(shutil.copy(model, tmp_path / "same.gguf"))
    assert opened(same, cache)[0].timings.packed_before, "the same weights, whatever the file is called"
    assert not opened(model, cache, weights=DType.F32)[0].timings.packed_before
    assert len(entries(cache)) == 2

    monkeypatch.setattr(digest, "SETTLED_S", -ROOM)  # a file of this moment is as good as an old one
    opened(model, cache)
    times, whole = model.stat(), bytearray(model.read_bytes())
    whole[-9000] ^= 1
    model.write_bytes(whole)
    os.utime(model, ns=(times.st_atime_ns, times.st_mtime_ns))
    changed, logits = opened(model, cache)
    assert not changed.timings.packed_before
    assert (logits == opened(model, None)[1]).all()
    assert len(entries(cache)) == 3

    def otherwise(fill: Callable[..., int]) -> Callable[..., int]:
        def filled(out: NDArray[np.uint8], *arguments: Any) -> int:
            n_bytes = fill(out, *arguments)
            out[:1] ^= 1
            return n_bytes

        return filled

    monkeypatch.setattr(loading, "_fill_blocks", otherwise(loading._fill_blocks))
    assert not opened(model, cache)[0].timings.packed_before
    assert len(entries(cache)) == 4


def test_the_model_is_read_whole_only_if_it_may_have_changed(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache, counted = WeightCache(tmp_path / "kept", ROOM), []
    hashed = digest.weights_digest
    monkeypatch.setattr(digest, "weights_digest", lambda *a: counted.append(a) or hashed(*a))
    opened(model, cache)
    opened(model, cache)
    assert len(counted) == 2, "it may be changed again within the resolution of the file system's times"
    monkeypatch.setattr(digest, "SETTLED_S", -ROOM)
    opened(model, cache)
    opened(model, cache)
    assert len(counted) == 3
    note = next((cache.folder / "models").iterdir())
    for damage in ("", "[]", note.read_text().replace("model.gguf", "other.gguf")):
        note.write_text(damage)
        assert opened(model, cache)[0].timings.packed_before
    assert len(counted) == 6


def cut_off(whole: bytes) -> bytes:
    return whole[:-4097]


def longer(whole: bytes) -> bytes:
    return whole + bytes(4096)


def of_another_key(whole: bytes) -> bytes:
    at = whole.index(b'"key": "') + 8
    return whole[:at] + (b"0" if whole[at : at + 1] != b"0" else b"1") + whole[at + 1 :]


def of_another_shape(whole: bytes) -> bytes:
    at = whole.index(b'"shape": [') + 10
    return whole[:at] + (b"1" if whole[at : at + 1] != b"1" else b"2") + whole[at + 1 :]


def nothing(_: bytes) -> bytes:
    return b""


def of_something_else(_: bytes) -> bytes:
    return (2).to_bytes(8, "little") + b"{}"


def one_bit(whole: bytes) -> bytes:
    at = int.from_bytes(whole[:8], "little") + 8 + 5
    return whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :]


def test_an_entry_that_is_damaged_or_foreign_is_not_used_and_made_again(model: Path, tmp_path: Path) -> None:
    cache = WeightCache(tmp_path / "kept", ROOM)
    _, expected = opened(model, cache)
    (path,) = entries(cache)
    whole = path.read_bytes()
    for damage in (cut_off, longer, of_another_key, of_another_shape, nothing, of_something_else, one_bit):
        path.write_bytes(damage(whole))
        session, logits = opened(model, WeightCache(cache.folder, ROOM, verify=damage is one_bit))
        assert (logits == expected).all(), damage
        assert not session.timings.packed_before
        assert len(session.notices) == 1
        assert session.notices[0].startswith("packed weights are not used, and made again: ")
        assert path.name in session.notices[0]
        assert path.read_bytes() == whole
        assert entries(cache) == [path], "and nothing half-written"


def test_no_more_is_kept_than_the_limit_and_what_was_used_last_stays(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("gguf", reason="weights in blocks are converted by the package gguf")
    cache = WeightCache(tmp_path / "kept", ROOM)
    formats = (DType.Q4_0, DType.Q8_0, DType.Q4_1)
    of = {}
    for age, weights in enumerate(formats):
        before = set(entries(cache))
        opened(model, cache, weights=weights)
        (of[weights],) = set(entries(cache)) - before
        os.utime(of[weights], (age, age))
    opened(model, cache, weights=formats[0])  # used again
    (cache.folder / ".half-written").write_bytes(b"")
    os.utime(cache.folder / ".half-written", (0, 0))
    of[formats[2]].unlink()
    total = sum(path.stat().st_size for path in of.values() if path.exists())
    opened(model, WeightCache(cache.folder, total + 1), weights=formats[2])
    assert set(entries(cache)) == {of[formats[0]], of[formats[2]]}
    assert not (cache.folder / ".half-written").exists()

    small, _ = opened(model, WeightCache(tmp_path / "small", 5000))
    assert len(small.notices) == 1
    assert "are not kept; at most 5.00 kB are" in small.notices[0]
    assert not entries(WeightCache(tmp_path / "small", 0))
    (tmp_path / "a file").write_bytes(b"")
    nowhere, _ = opened(model, WeightCache(tmp_path / "a file", ROOM))
    assert len(nowhere.notices) == 1
    monkeypatch.setattr(weight_cache, "LARGEST_SHARE_OF_FREE", 0.0)
    full, _ = opened(model, WeightCache(tmp_path / "full", ROOM))
    assert "at most 0 B are" in full.notices[0]


def test_every_format_is_kept(tmp_path: Path) -> None:
    """Rows that the file has in another order, f32 and bf16, an embedding table that is the last product's too."""
    cache = WeightCache(tmp_path / "kept", ROOM)
    for form in ("f32", "bf16", "q8_0"):
        path = tmp_path / f"{form}.gguf"
        make_weights(little(vocab=50, d_model=64, d_ff=96, head_dim=16, heads=4), form, path)
        _, expected = opened(path, cache)
        again, logits = opened(path, cache)
        assert again.timings.packed_before
        assert (logits == expected).all()
