"""A model with its weights: a GGUF file, or a folder with `config.json` and safetensors.

The weights are found by the names that the operator graph gives them, and have the shapes that the graph says, whatever
the file calls them and however it orders their rows. GGUF files of architecture llama hold the rows of each query and
key head in the order of interleaved pairs (llama.cpp, convert_hf_to_gguf.py, `LlamaModel.permute`); here they are those
of halves, as everywhere else.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import numpy.typing as npt

from smesim.errors import WorkloadError
from smesim.workload.config import ModelConfig
from smesim.workload.gguf_file import GgufFile
from smesim.workload.gguf_metadata import config_of
from smesim.workload.safetensors_file import read_folder
from smesim.workload.stored import Bytes, Floats, StoredTensor

_GGUF = {
    "embed": "token_embd", "final_norm": "output_norm", "lm_head": "output",
    "attn_norm": "attn_norm", "q_proj": "attn_q", "k_proj": "attn_k", "v_proj": "attn_v", "o_proj": "attn_output",
    "q_norm": "attn_q_norm", "k_norm": "attn_k_norm", "ffn_norm": "ffn_norm", "gate_proj": "ffn_gate",
    "up_proj": "ffn_up", "down_proj": "ffn_down", "router": "ffn_gate_inp", "gate_experts": "ffn_gate_exps",
    "up_experts": "ffn_up_exps", "down_experts": "ffn_down_exps",
}  # fmt: skip
"""Names of gguf-py/gguf/constants.py (`TENSOR_NAMES`); those of layers stand behind "blk.N."."""

_HUGGING_FACE = {
    "embed": "model.embed_tokens", "final_norm": "model.norm", "lm_head": "lm_head",
    "attn_norm": "input_layernorm", "q_proj": "self_attn.q_proj", "k_proj": "self_attn.k_proj",
    "v_proj": "self_attn.v_proj", "o_proj": "self_attn.o_proj", "q_norm": "self_attn.q_norm",
    "k_norm": "self_attn.k_norm", "ffn_norm": "post_attention_layernorm", "gate_proj": "mlp.gate_proj",
    "up_proj": "mlp.up_proj", "down_proj": "mlp.down_proj", "router": "mlp.gate",
    "gate_experts": "mlp.experts.{}.gate_proj", "up_experts": "mlp.experts.{}.up_proj",
    "down_experts": "mlp.experts.{}.down_proj",
}  # fmt: skip
"""Names of transformers' modules; those of layers stand behind "model.layers.N."."""


@dataclass(frozen=True)
class Weight:
    """One weight of the graph: the tensors of the file that it is made of, one behind another (an expert each), and
    the order in which their rows are taken, None for that of the file."""

    tensors: tuple[StoredTensor, ...]
    order: npt.NDArray[np.intp] | None = None

    @property
    def format(self) -> str:
        """The format's name in GGUF's words."""
        return self.tensors[0].format.name

    @property
    def stored_bytes(self) -> int:
        return sum(tensor.raw.nbytes for tensor in self.tensors)

    @property
    def n_rows(self) -> int:
        return sum(tensor.n_rows for tensor in self.tensors)

    def rows(self, begin: int, end: int) -> Bytes:
        """The bytes of some rows of one tensor, counted over all; what needs no new order is not copied."""
        tensor, first = self._at(begin)
        rows = tensor.rows
        return rows[begin - first : end - first] if self.order is None else rows[self.order[begin:end]]

    def floats(self, begin: int, end: int) -> Floats:
        """The same rows as f32."""
        return self._at(begin)[0].floats(self.rows(begin, end))

    def release(self, begin: int, end: int) -> None:
        """Give back the memory of some rows that were read from the file; of rows in a new order, later with all."""
        if self.order is None:
            tensor, first = self._at(begin)
            tensor.release(begin - first, end - first)

    def _at(self, row: int) -> tuple[StoredTensor, int]:
        each = self.tensors[0].n_rows
        return self.tensors[row // each], row // each * each


@dataclass(frozen=True)
class Checkpoint:
    """A model's numbers and its weights. Make one with `Checkpoint.open(path)`."""

    path: Path
    model: ModelConfig
    tensors: Mapping[str, StoredTensor]
    gguf: GgufFile | None
    """The file where it is GGUF; its keys have the tokenizer as well."""

    @classmethod
    def open(cls, path: Path | str) -> Checkpoint:
        """A .gguf file, or a folder (or its config.json) with safetensors. WorkloadError says what is wrong."""
        path = Path(path)
        if path.is_dir() or path.suffix == ".json":
            folder = path if path.is_dir() else path.parent
            return cls(folder, ModelConfig.from_hf_json(folder / "config.json"), read_folder(folder), None)
        file = GgufFile.read(path)
        return cls(path, config_of(file), file.tensors, file)

    def weight(self, name: str, shape: tuple[int, ...]) -> Weight:
        """The weight that the graph calls by that name; WorkloadError where it is missing or not of that shape."""
        own = gguf_name(name) if self.gguf is not None else hugging_face_name(name)
        names = [own.format(expert) for expert in range(shape[0])] if "{}" in own else [own]
        for wanted in names:
            if wanted not in self.tensors:
                raise WorkloadError(f"{self.path}: tensor {wanted!r} is missing; {self.model.name} needs it")
        tensors = tuple(self.tensors[wanted] for wanted in names)
        accepted = shape[1:] if "{}" in own else shape
        for tensor in tensors:
            if tensor.shape != accepted:
                raise WorkloadError(f"{tensor.where} has shape {tensor.shape}; accepted: {accepted}")
        heads = {"q_proj": self.model.heads, "k_proj": self.model.kv_heads}.get(_parts(name)[1])
        if self.gguf is None or self.model.architecture != "llama" or heads is None:
            return Weight(tensors)
        pairs = np.arange(shape[0]).reshape(heads, self.model.head_dim // 2, 2)
        return Weight(tensors, pairs.swapaxes(1, 2).ravel())

    @property
    def files(self) -> tuple[Path, ...]:
        """The files that the model's numbers and weights are in."""
        if self.gguf is not None:
            return (self.path,)
        return (self.path / "config.json", *sorted(self.path.glob("*.safetensors*")))

    def numbers(self) -> str:
        """The model's numbers as text, without what it calls itself."""
        return self.model.model_copy(update={"name": "-"}).model_dump_json()

    @cached_property
    def fingerprint(self) -> str:
        """Hash of the model's numbers and of a sample of every tensor's bytes; weights that differ have another, but
        for changes of single bytes."""
        digest = hashlib.sha256(self.numbers().encode())
        for name in sorted(self.tensors):
            tensor = self.tensors[name]
            digest.update(f"{name}{tensor.format.name}{tensor.shape}".encode())
            for begin in np.linspace(0, max(0, len(tensor.raw) - _SAMPLE_BYTES), _SAMPLES).astype(int).tolist():
                digest.update(tensor.raw[begin : begin + _SAMPLE_BYTES].data)
            tensor.release()
        return digest.hexdigest()[:32]


_SAMPLES, _SAMPLE_BYTES = 16, 256
"""Of each tensor: a few pieces, because a page of the file is read for each."""


def gguf_name(name: str) -> str:
    """What GGUF files call a weight of the graph."""
    layer, node, kind = _parts(name)
    return f"{'' if layer is None else f'blk.{layer}.'}{_GGUF[node]}.{kind}"


def hugging_face_name(name: str) -> str:
    """What transformers calls a weight of the graph; {} stands for the number of an expert."""
    layer, node, kind = _parts(name)
    return f"{'' if layer is None else f'model.layers.{layer}.'}{_HUGGING_FACE[node]}.{kind}"


def _parts(name: str) -> tuple[int | None, str, str]:
    """Layer, node, and "weight" or "bias" of a weight's name in the graph."""
    found = re.fullmatch(r"(?:layers\.(\d+)\.)?(\w+)\.(weight|bias)", name)
    if found is None:
        raise WorkloadError(f"{name!r} is no name of a weight; names are like layers.0.q_proj.weight")
    return None if found[1] is None else int(found[1]), found[2], found[3]
