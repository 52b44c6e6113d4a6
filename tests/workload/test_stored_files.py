"""Model files: what is written is read back, and nothing that a file says is believed without being checked."""

from __future__ import annotations

import contextlib
import json
import struct
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from workload_models import tiny, tiny_moe

from smesim.errors import SmesimError, WorkloadError
from smesim.workload import catalog
from smesim.workload.checkpoint import Checkpoint, gguf_name, hugging_face_name
from smesim.workload.gguf_file import GgufFile
from smesim.workload.gguf_write import NewTensor, write_gguf
from smesim.workload.graph import Role, build_graph
from smesim.workload.make_weights import make_weights
from smesim.workload.phase import Phase
from smesim.workload.safetensors_file import INDEX, read_folder, read_safetensors
from smesim.workload.stored import FORMATS
from smesim.workload.tokenizer import Tokenizer

F32 = FORMATS["F32"]
KEYS = {"general.name": "néant", "a.whole": 7, "a.float": 0.5, "a.flag": True, "a.words": ["x", ""], "a.list": [-1, 2]}


def tensor(name: str, values: np.ndarray) -> NewTensor:
    return NewTensor(name, values.shape, F32, lambda: [values.astype("<f4").tobytes()])


def weights_of(model) -> dict[str, np.ndarray]:
    """Drawn weights by the names of the graph."""
    rng = np.random.default_rng(3)
    tensors = build_graph(model, Phase.decode(1)).tensors.values()
    return {t.name: rng.standard_normal(t.shape).astype(np.float32) for t in tensors if t.role is Role.WEIGHT}


def safetensors(path: Path, arrays: dict[str, np.ndarray], **changes) -> Path:
    """A file written from the description of the format; `changes` replace parts of its first tensor's facts."""
    header, data = {}, b""
    for name, array in arrays.items():
        begin, data = len(data), data + array.astype("<f4").tobytes()
        header[name] = {"dtype": "F32", "shape": list(array.shape), "data_offsets": [begin, len(data)]}
    header[next(iter(arrays))].update(changes)
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + data)
    return path


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """A small whole model with a vocabulary."""
    path = tmp_path_factory.mktemp("made") / "made.gguf"
    make_weights(tiny(vocab=270, d_model=32, d_ff=32, head_dim=8, layers=1), "q4_0", path)
    return path.read_bytes()


def test_a_gguf_file_that_was_written_is_read_back(tmp_path):
    arrays = {"one": np.arange(6.0).reshape(2, 3), "two": np.ones(5)}
    write_gguf(tmp_path / "file.gguf", KEYS, [tensor(name, array) for name, array in arrays.items()])
    file = GgufFile.read(tmp_path / "file.gguf")
    assert file.metadata == KEYS
    assert {name: stored.floats().reshape(stored.shape).tolist() for name, stored in file.tensors.items()} == {
        name: array.tolist() for name, array in arrays.items()
    }


def test_the_package_gguf_reads_made_up_weights(tmp_path):
    """An independent reader finds the same keys, shapes and numbers."""
    gguf = pytest.importorskip("gguf", reason="needs the extra llm")
    model = catalog.load("llama-3.2-3b").model_copy(
        update={"vocab": 300, "d_model": 256, "d_ff": 64, "heads": 4, "kv_heads": 2, "name": "made"}
    )
    for form in ("f32", "f16", "bf16", "q8_0", "q4_0", "q4_1"):
        make_weights(model, form, tmp_path / "made.gguf", layers=2)
        reader = gguf.GGUFReader(tmp_path / "made.gguf")
        assert reader.fields["llama.block_count"].contents() == 2
        assert len(reader.fields["tokenizer.ggml.tokens"].contents()) == 300
        checkpoint = Checkpoint.open(tmp_path / "made.gguf")
        assert checkpoint.model == model.model_copy(update={"layers": 2})
        assert {t.name for t in reader.tensors} == set(checkpoint.tensors)
        for theirs in reader.tensors:
            ours = checkpoint.tensors[theirs.name]
            numbers = gguf.quants.dequantize(theirs.data, theirs.tensor_type)
            assert (ours.floats().reshape(ours.shape) == numbers).all()
            if len(ours.shape) == 2:
                assert np.sum(numbers**2, axis=1).mean() == pytest.approx(1.0, rel=0.1)


@pytest.mark.parametrize(
    "model", [tiny(), tiny(architecture="qwen2", qkv_bias=True), tiny_moe()], ids=lambda model: model.architecture
)
def test_weights_are_those_of_the_graph_whatever_the_file_calls_and_orders_them(tmp_path, model):
    weights = weights_of(model)
    shards: list[dict[str, np.ndarray]] = [{}, {}]
    for i, (name, array) in enumerate(weights.items()):
        own = hugging_face_name(name)
        parts = {own.format(e): array[e] for e in range(len(array))} if "{}" in own else {own: array}
        shards[i % 2] |= parts
    names = {name: f"{i}.safetensors" for i, shard in enumerate(shards) for name in shard}
    for i, shard in enumerate(shards):
        safetensors(tmp_path / f"{i}.safetensors", shard)
    (tmp_path / INDEX).write_text(json.dumps({"weight_map": names}))
    folder = Checkpoint(tmp_path, model, read_folder(tmp_path), None)

    def stored(name: str, array: np.ndarray) -> np.ndarray:
        """convert_hf_to_gguf.py, `LlamaModel.permute`."""
        heads = {"q_proj": model.heads, "k_proj": model.kv_heads}.get(name.split(".")[-2])
        if heads is None or model.architecture != "llama":
            return array
        return array.reshape(heads, 2, -1, array.shape[-1]).swapaxes(1, 2).reshape(array.shape)

    path = tmp_path / "model.gguf"
    write_gguf(path, KEYS, [tensor(gguf_name(name), stored(name, array)) for name, array in weights.items()])
    file = GgufFile.read(path)
    for checkpoint in (folder, Checkpoint(path, model, file.tensors, file)):
        for name, array in weights.items():
            weight = checkpoint.weight(name, array.shape)
            flat = array.reshape(-1, array.shape[-1])
            each = weight.tensors[0].n_rows
            found = np.concatenate([weight.floats(i, i + each) for i in range(0, weight.n_rows, each)])
            assert (found == flat).all(), name
            last = weight.n_rows - 1
            assert (weight.floats(last, last + 1) == flat[last:]).all(), name
    assert folder.fingerprint != Checkpoint(path, model, file.tensors, file).fingerprint


def test_a_weight_that_is_missing_or_of_another_shape_is_named(tmp_path):
    arrays = {"output_norm.weight": np.ones(64), "token_embd.weight": np.ones((3, 64))}
    write_gguf(tmp_path / "m.gguf", {}, [tensor(name, array) for name, array in arrays.items()])
    file = GgufFile.read(tmp_path / "m.gguf")
    checkpoint = Checkpoint(file.path, tiny(), file.tensors, file)
    with pytest.raises(WorkloadError, match=r"m.gguf: tensor 'blk.0.attn_q.weight' is missing"):
        checkpoint.weight("layers.0.q_proj.weight", (128, 64))
    with pytest.raises(WorkloadError, match=r"'token_embd.weight' has shape \(3, 64\); accepted: \(160, 64\)"):
        checkpoint.weight("embed.weight", (160, 64))


# -- files that lie


def header(n_tensors: int = 0, n_keys: int = 0, version: int = 3) -> bytes:
    return b"GGUF" + struct.pack("<IQQ", version, n_tensors, n_keys)


def text(words: bytes) -> bytes:
    return struct.pack("<Q", len(words)) + words


def facts(*, name: bytes = b"t", shape: tuple[int, ...] = (4,), form: int = 0, offset: int = 0) -> bytes:
    return text(name) + struct.pack(f"<I{len(shape)}QIQ", len(shape), *shape, form, offset)


HUGE = 2**64 - 1
LIES = {
    "other byte order": (header(version=3 << 24), "version 50331648 in the other byte order; accepted: 2 and 3"),
    "too many keys": (header(n_keys=HUGE), f"{HUGE} keys cannot be in 0 bytes"),
    "too many tensors": (header(n_tensors=2**40), r"\d+ tensors cannot be in"),
    "long name": (header(n_keys=1) + struct.pack("<Q", HUGE) + bytes(99), "the name of a key is longer than"),
    "long text": (header(n_keys=1) + text(b"k") + struct.pack("<IQ", 8, HUGE) + bytes(9), f"k takes {HUGE} bytes"),
    "unknown type": (header(n_keys=1) + text(b"k") + struct.pack("<I", 99) + bytes(9), "k is of type 99"),
    "array in array": (
        header(n_keys=1) + text(b"k") + struct.pack("<IIQ", 9, 9, 2) + bytes(99), "k is an array of type 9"
    ),
    "long array": (
        header(n_keys=1) + text(b"k") + struct.pack("<IIQ", 9, 10, 2**61) + bytes(99), "elements of k cannot be in"
    ),
    "huge array": (
        header(n_keys=1) + text(b"k") + struct.pack("<IIQ", 9, 0, 1 << 25) + bytes(1 << 25), "k has 33554432 elements"
    ),
    "no text": (header(n_keys=1) + text(b"\xff") + bytes(9), "the name of a key is not UTF-8"),
    "twice": (header(n_keys=2) + 2 * (text(b"k") + struct.pack("<IB", 0, 1)), "key 'k' is there twice"),
    "alignment": (
        header(n_keys=1) + text(b"general.alignment") + struct.pack("<II", 4, 3), "general.alignment is 3; accepted"
    ),
    "no axes": (header(1) + facts(shape=()) + bytes(8), "tensor 't' has 0 axes"),
    "many axes": (header(1) + facts(shape=(1,) * 9), "tensor 't' has 9 axes"),
    "overflow": (header(1) + facts(shape=(2**32, 2**32, 2**32)), "tensor 't' has shape"),
    "empty": (header(1) + facts(shape=(4, 0)) + bytes(8), r"tensor 't' has shape \(0, 4\)"),
    "unknown format": (header(1) + facts(form=77), "tensor 't' is of format 77"),
    "no whole blocks": (header(1) + facts(form=2, shape=(33,)) + bytes(99), "rows of 33 elements in Q4_0"),
    "behind the end": (header(1) + facts(shape=(400,)) + bytes(99), "tensor 't' takes 1600 bytes"),
    "far away": (header(1) + facts(offset=HUGE - 31) + bytes(99), "tensor 't' takes 16 bytes"),
    "crooked": (header(1) + facts(offset=1) + bytes(99), "tensors begin at multiples of 32"),
    "same name": (header(2) + 2 * facts() + bytes(99), "tensor 't' is there twice"),
}  # fmt: skip


@pytest.mark.parametrize("lie", LIES)
def test_a_gguf_file_that_lies_is_one_error_that_names_it(tmp_path, lie):
    data, message = LIES[lie]
    path = tmp_path / "lie.gguf"
    path.write_bytes(data)
    tracemalloc.start()
    with pytest.raises(WorkloadError, match=message) as error:
        GgufFile.read(path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert str(path) in str(error.value)
    assert peak < 1 << 20


@given(data=st.data())
def test_no_damage_to_a_gguf_file_goes_through_unnoticed_or_crashes(data, made, tmp_path_factory):
    """Cut anywhere, or overwritten at some places: either one error, or a file whose tensors lie within it."""
    damaged = bytearray(made[: data.draw(st.integers(0, len(made)))] if data.draw(st.booleans()) else made)
    for _ in range(data.draw(st.integers(0, 3))):
        words = data.draw(st.sampled_from([b"\xff" * 8, bytes(8), bytes(7) + b"\x80", b"\x09", b"\x01"]))
        at = data.draw(st.integers(0, max(0, len(damaged) - len(words))))
        damaged[at : at + len(words)] = words
    path = tmp_path_factory.mktemp("damaged") / "damaged.gguf"
    path.write_bytes(damaged)
    with contextlib.suppress(SmesimError):
        checkpoint = Checkpoint.open(path)
        for name, spec in build_graph(checkpoint.model, Phase.decode(1)).tensors.items():
            if spec.role is Role.WEIGHT:
                weight = checkpoint.weight(name, spec.shape)
                assert len(weight.rows(0, weight.n_rows).ravel()) == weight.stored_bytes <= len(damaged)
        if "tokenizer.ggml.model" in checkpoint.gguf.metadata:
            Tokenizer.of(checkpoint).encode("a b")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"dtype": "F8_E4M3"}, "has dtype 'F8_E4M3'; accepted: F32, F16, BF16"),
        ({"shape": [2, -3]}, r"has shape \[2, -3\]"),
        ({"shape": [2**40, 2**40]}, "takes 4835703278458516698824704 bytes"),
        ({"shape": "wide"}, "has shape 'wide'"),
        ({"data_offsets": [0, 25]}, r"takes 24 bytes and has data_offsets \[0, 25\]"),
        ({"data_offsets": [8, 32]}, r"within the 24 behind the header"),
        ({"data_offsets": [-24, 0]}, r"has data_offsets \[-24, 0\]"),
        ({"data_offsets": [True]}, r"has data_offsets \[True\]"),
    ],
)
def test_safetensors_that_lie_are_one_error_that_names_the_tensor(tmp_path, changes, message):
    path = safetensors(tmp_path / "lie.safetensors", {"w": np.zeros((2, 3))}, **changes)
    with pytest.raises(WorkloadError, match=rf"lie.safetensors: tensor 'w' .*{message}|{message}"):
        read_safetensors(path)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "it is empty"),
        (b"\x01", "a header of 1 bytes in 1"),
        (struct.pack("<Q", 2**62) + b"{}", "a header of 4611686018427387904 bytes in 10"),
        (struct.pack("<Q", 2) + b"\xff\xff", "not UTF-8"),
        (struct.pack("<Q", 2) + b"[]", "is a list; expected an object"),
        (struct.pack("<Q", 6) + b'{"w":1', "unreadable JSON"),
        (struct.pack("<Q", 13) + b'{"w":1,"w":2}', "a key is there twice"),
        (struct.pack("<Q", 100000) + b"[" * 100000, "unreadable JSON"),
    ],
)
def test_no_whole_safetensors_file_is_one_error(tmp_path, data, message):
    path = tmp_path / "lie.safetensors"
    path.write_bytes(data)
    with pytest.raises(WorkloadError, match=rf"lie.safetensors.*{message}"):
        read_safetensors(path)


@pytest.mark.parametrize("shard", ["../up.safetensors", 3, "gone.safetensors", "here.safetensors"])
def test_shards_must_lie_beside_their_index_and_hold_what_it_says(tmp_path, shard):
    safetensors(tmp_path / "here.safetensors", {"other": np.zeros(2)})
    (tmp_path / INDEX).write_text(json.dumps({"weight_map": {"w": shard}}))
    with pytest.raises(WorkloadError, match=r"accepted: the name of a file beside it|No such file|'w' is missing"):
        read_folder(tmp_path)
