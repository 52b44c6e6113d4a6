"""What an engine is: its kernels' efficiencies and the decisions it takes, read from a file with provenance.

Efficiencies are shares of what the chip's own entry says a core or a unit can do, so one profile serves several chips.
A number with provenance `fitted` and a `low` and `high` is free: `smesim fit` lays it through measurements.
"""

from __future__ import annotations

import tomllib
from functools import cache
from importlib import resources
from typing import Annotated, Any, Literal

from pydantic import Field

from smesim.errors import SmesimError
from smesim.hwmodel.chip import DTypeName, Name
from smesim.hwmodel.quantity import Quantity, Record

_SUFFIX = ".toml"


class MatrixKernel(Record):
    """A product on a matrix unit.

    * `efficiency`: share of the unit's peak that the inner loop reaches; `tile_steps`: k-steps that loading and
      storing a block of accumulators costs; `call_s`: a call.
    * `pack_rhs`, `pack_lhs` (s/B): bringing an operand that is larger than the cache into the kernel's layout, at every
      call. `aliased` is what this costs more where the rows of the right operand fall on few cache sets, and
      `transposed_rhs` what it costs of a right operand that lies transposed.
    * `paged` (s/FLOP): reading the right operand in place, where each of its rows lies on a page of its own.
    * `generate` (s/element): writing out weights that are kept in another format, for every block of rows.
    * `reload` (s/B): reading the right operand again for every block of rows, without blocks for the cache.
    * `vector` (s/B): products of at most `vector_rows` rows, which go over the weights once without tiles.
    * `any_threads`: units multiply one row whatever the number of threads, also where the engine has a thread for each.
    * `exposed` (s/B): part of fetching weights from memory that multiplying does not hide.
    * `switch`: share of its rate that a unit loses where several threads take turns on it.
    """

    arithmetic: DTypeName
    efficiency: Quantity
    tile_steps: Quantity | None = None
    call_s: Quantity | None = None
    pack_rhs: Quantity | None = None
    pack_lhs: Quantity | None = None
    aliased: Quantity | None = None
    transposed_rhs: Quantity | None = None
    paged: Quantity | None = None
    reload: Quantity | None = None
    generate: Quantity | None = None
    vector: Quantity | None = None
    vector_rows: Annotated[int, Field(ge=0)] = 0
    any_threads: bool = False
    exposed: Quantity | None = None
    switch: Quantity | None = None


class CoreKernel(Record):
    """Products on a core: `gemm` is a share of its peak in `arithmetic`, or of what a loop of `instruction` reaches,
    of which rows of experts reach the share `experts`; `gemv` are weights a cycle of one row, or `gemv_bits` bits of
    them where a kernel goes over weights bit by bit. `serial` (s/B): bringing the left operand into the kernel's
    format, where one thread does that while the others wait. `fork_s`: waking the other threads for a call; a product
    that one thread ends sooner by itself is left to it."""

    arithmetic: DTypeName
    instruction: Name | None = None
    gemm: Quantity
    gemv: Quantity | None = None
    gemv_bits: Quantity | None = None
    experts: Quantity | None = None
    serial: Quantity | None = None
    call_s: Quantity | None = None
    fork_s: Quantity | None = None
    tile_steps: Quantity | None = None


class Meeting(Record):
    """What threads pay to meet after each node of a graph: `node_s` of the fastest core, longer where slower ones take
    part, `thread_s` for each of them, and far more (`stalled_s`) where they are as many as the chip has cores, so that
    whatever else runs takes one of them away while the others wait."""

    node_s: Quantity
    thread_s: Quantity
    stalled_s: Quantity


class Attention(Record):
    """Attention of an engine: `gemm` is the share of a core's f32 peak of its products, `score` FLOP a score costs in
    the softmax, `causal` whether masked pairs are left out."""

    gemm: Quantity
    score: Quantity
    causal: bool = False


class EngineProfile(Record):
    """One engine, or one build of it.

    `chunk_columns`: columns of a chunk, where they are fixed; a product that falls into fewer than `chunks_per_thread`
    of them for each thread is then cut in equal parts, as many as threads.

    `base` names the engine whose kernels and threads it shares, but for those that it has itself. `chunks_per_thread`:
    chunks of a product for each thread, drawn from one counter; 0 gives each thread an equal part. `hybrid_rows`: from
    so many rows on only the first thread on each unit drives it and the others compute on their cores; 0 is never.
    `unit_in_decode`: whether units multiply one row. `unit_vectors`: whether the engine has kernels for that.
    `kernel_of`: formats of weights whose kernel is, or is taken to be, that of another one.
    """

    schema_version: Literal[1]
    name: Name
    description: str
    source: Annotated[str, Field(min_length=1)]
    base: Name | None = None
    unit_vectors: bool = True
    chunks_per_thread: Annotated[int, Field(ge=0)] = 0
    chunk_columns: Annotated[int, Field(ge=0)] = 0
    hybrid_rows: Annotated[int, Field(ge=0)] = 0
    unit_in_decode: Literal["never", "one_thread_each", "always"] = "never"
    matrix: dict[Name, MatrixKernel] = Field(default_factory=dict)
    core: dict[Name, CoreKernel] = Field(default_factory=dict)
    kernel_of: dict[Name, Name] = Field(default_factory=dict)
    meeting: Meeting | None = None
    attention: Attention | None = None


def number(quantity: Quantity | None, absent: float = 0.0) -> float:
    """The value of a number that a profile may leave out."""
    return absent if quantity is None else quantity.value


def names() -> tuple[str, ...]:
    """The engines there are, sorted."""
    folder = resources.files("smesim.engines") / "profiles"
    return tuple(sorted(f.name.removesuffix(_SUFFIX) for f in folder.iterdir() if f.name.endswith(_SUFFIX)))


@cache
def load_document(name: str) -> dict[str, Any]:
    """The nested tables of an engine's own file; SmesimError lists the engines there are."""
    if name not in names():
        raise SmesimError(f"unknown engine {name!r}; accepted: {', '.join(names())}")
    text = (resources.files("smesim.engines") / "profiles" / f"{name}{_SUFFIX}").read_text(encoding="utf-8")
    return tomllib.loads(text)


def profile_of(document: dict[str, Any], base: EngineProfile | None) -> EngineProfile:
    """A profile from its tables and the one it is based on."""
    if base is None:
        return EngineProfile.model_validate(document)
    inherited = base.model_dump(mode="json", exclude_defaults=True)
    merged = inherited | document
    for kernels in ("matrix", "core"):
        if kernels in inherited:
            own = document.get(kernels, {})
            merged[kernels] = inherited[kernels] | {n: inherited[kernels].get(n, {}) | own[n] for n in own}
    return EngineProfile.model_validate(merged)


def in_half_the_steps(kernel: MatrixKernel, arithmetic: DTypeName) -> MatrixKernel:
    """The kernel of a format of half the bytes: the same loop with twice the products a step, so half the steps."""
    steps = kernel.tile_steps
    halved = None if steps is None else steps.model_copy(update={"value": steps.value / 2, "low": None, "high": None})
    return kernel.model_copy(update={"arithmetic": arithmetic, "tile_steps": halved})


def load(name: str) -> EngineProfile:
    """The profile of an engine by name."""
    document = load_document(name)
    return profile_of(document, load(document["base"]) if "base" in document else None)
