"""The buffers of a program in memory: allocated, filled, and read back as ordinary arrays.

Weights come from arrays (tests, checkpoints) or from a seed. Random weights depend only on the seed, the buffer's
name and the element's place in the logical matrix, not on layout, threads or instruction set. So does the routing, of
which only what the plan leaves open is drawn (`routing.py`).
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

from smesim.errors import DeviceError
from smesim.exec import bf16, blocks, kv_cache
from smesim.exec.allocation import allocate
from smesim.exec.arena import Arena
from smesim.exec.device import Device, native
from smesim.exec.routing import balanced_routing, routing_table
from smesim.plan.buffers import ROPE_TABLES, is_routing
from smesim.plan.formats import NR, format_of_number
from smesim.plan.program import BufferRole, Layout, Number, Program, TaskKind
from smesim.workload.config import ModelConfig
from smesim.workload.rope import inverse_frequencies

Progress = Callable[[int], None]

FILL_CHUNK_BYTES = 16 << 20
PACK_PANELS = 64
"""Panels of weights that a thread brings into the kernels' layout at a time."""


class Tensors:
    """One array of bytes per buffer of a program."""

    def __init__(
        self, program: Program, device: Device, share: Tensors | None = None,
        roles: tuple[BufferRole, ...] = (BufferRole.WEIGHT,), arena: Arena | None = None,
        given: Mapping[str, npt.NDArray[np.uint8]] | None = None,
    ) -> None:  # fmt: skip
        """Zeroes, but for what is `given` by name, as the program has it in memory, and for what `share` has of these
        roles under the same name and of the same shape and layout.

        Activations lie in the arena, if there is one; what is in them then is left from other programs, and when a run
        has ended only what nobody read is sure to be there.
        """
        self.seed: int | None = None
        """Of the random numbers, None where they were given."""
        self._program = program
        self._device = device
        self._shared = {} if share is None else share._taken_over(program, roles)
        there, sizes = dict(self._shared), program.buffers["n_bytes"].tolist()
        there |= {program.buffer_index(name): array for name, array in (given or {}).items()}
        if arena is not None:
            there |= arena.placed(program)
        self._arrays = [there[i] if i in there else allocate(size) for i, size in enumerate(sizes)]

    @classmethod
    def random(
        cls,
        program: Program,
        model: ModelConfig,
        device: Device,
        seed: int,
        progress: Progress | None = None,
        share: Tensors | None = None,
    ) -> Tensors:
        """Weights, KV cache, prompt and routing drawn from a seed; scaled so that activations keep their size.

        `progress` is called with the number of bytes that have just been filled. Weights of the same name and shape in
        `share`, which must come from the same seed and model, are taken over instead of made again.
        """
        tensors = cls(program, device, share)
        tensors.seed = seed
        jobs = [
            job
            for index in range(len(program.buffers))
            if index not in tensors._shared
            for job in tensors._fill_jobs(index, model, seed)
        ]
        with ThreadPoolExecutor(len(device.cores)) as pool:
            for n_bytes in pool.map(lambda job: job(), jobs):
                if progress is not None:
                    progress(n_bytes)
        return tensors

    @classmethod
    def from_arrays(
        cls, program: Program, model: ModelConfig, device: Device, arrays: Mapping[str, npt.NDArray[Any]]
    ) -> Tensors:
        """Buffers filled from arrays of the tensors' logical shapes, by buffer name; rotary tables are computed.

        KV caches may be given as (batch, kv_heads, positions, head_dim), a routing as the experts of each token
        (tokens, experts_per_token). DeviceError names what is missing.
        """
        tensors = cls(program, device)
        computed = {int(i) for slot in ("output0", "output1") for i in program.ops[slot]}
        for index, name in enumerate(program.buffer_names):
            role = program.buffers[index]["role"]
            if name == "tokens" and name in arrays:
                _check_tokens(name, arrays[name], model.vocab)
            if name in ROPE_TABLES:
                tensors.fill_rope(index, model)
            elif is_routing(name) and name in arrays:
                tensors._route(index, model, arrays[name])
            elif name in arrays:
                tensors.write(name, arrays[name])
            elif role in (BufferRole.WEIGHT, BufferRole.INDEX) and index not in computed:
                raise DeviceError(f"no array for {name!r}; given: {', '.join(arrays)}")
        return tensors

    def check_fit(self, program: Program) -> None:
        """DeviceError unless these are the buffers of that program: C finds them by its numbers and sizes."""
        mine = self._program
        if program.buffer_names != mine.buffer_names or not np.array_equal(program.buffers, mine.buffers):
            raise DeviceError(
                f"the tensors were made for program {mine.fingerprint()}, whose buffers are not those of program"
                f" {program.fingerprint()}; accepted: tensors made for it"
            )

    def _taken_over(
        self, program: Program, roles: tuple[BufferRole, ...] = (BufferRole.WEIGHT,)
    ) -> dict[int, npt.NDArray[np.uint8]]:
        """What is in another program as well, of the same name, shape and layout; by its buffers."""
        mine = {name: i for i, name in enumerate(self._program.buffer_names)}
        return {
            index: self._arrays[mine[name]]
            for index, (name, facts) in enumerate(zip(program.buffer_names, program.buffers, strict=True))
            if facts["role"] in roles and name in mine and facts == self._program.buffers[mine[name]]
        }

    def keep_weights_only(self) -> None:
        """Give back the memory of everything but the weights; what is left can only be shared."""
        roles = self._program.buffers["role"]
        self._arrays = [a if role == BufferRole.WEIGHT else a[:0] for a, role in zip(self._arrays, roles, strict=True)]

    def shared_bytes(self, program: Program) -> int:
        """Bytes of the weights that another program's tensors can take over from these."""
        return sum(len(array) for array in self._taken_over(program).values())

    @property
    def arrays(self) -> list[npt.NDArray[np.uint8]]:
        """The raw bytes, in the order of the program's buffers."""
        return self._arrays

    def read(self, name: str) -> npt.NDArray[Any]:
        """A copy of a buffer in logical, row-major form, as f32 or int32."""
        index = self._program.buffer_index(name)
        facts = self._program.buffers[index]
        rows, columns = int(facts["rows"]), int(facts["columns"])
        if facts["role"] == BufferRole.INDEX:
            return self._arrays[index].view(np.int32).copy()
        if facts["layout"] in kv_cache.LAYOUTS:
            number, layout = Number(int(facts["dtype"])), Layout(int(facts["layout"]))
            return kv_cache.unpacked(self._arrays[index], number, layout, rows, columns)
        if facts["dtype"] == Number.BF16 and facts["layout"] != Layout.LHS_PACKED:
            bits = self._arrays[index].view(np.uint16)
            if facts["layout"] == Layout.RHS_PACKED:
                parts = np.split(bits, self._matrices(index))
                values = np.stack([bf16.unpacked_rhs(part, rows, columns) for part in parts])
                return values if len(values) > 1 else values[0]
            return bf16.widened(bits).reshape(rows, columns)
        if facts["dtype"] in blocks.IN_BLOCKS:
            number, packed = Number(int(facts["dtype"])), np.split(self._arrays[index], self._matrices(index))
            unpacked = blocks.unpack_rhs if facts["layout"] == Layout.RHS_PACKED else blocks.dequantized
            values = np.stack([unpacked(number, matrix, rows, columns) for matrix in packed])
            return values if len(values) > 1 else values[0]
        flat = self._arrays[index].view(np.float32)
        match Layout(facts["layout"]):
            case Layout.ROW_MAJOR:
                return flat.reshape(rows, columns).copy()
            case Layout.RHS_PACKED:
                panels = flat.reshape(-1, -(-rows // 16), columns, 16)
                matrices = panels.transpose(0, 1, 3, 2).reshape(len(panels), -1, columns)[:, :rows]
                return matrices.copy() if len(matrices) > 1 else matrices[0].copy()
            case layout:
                raise DeviceError(f"buffer {name!r} has layout {layout.name}, which is not for reading")

    def write(self, name: str, array: npt.NDArray[Any]) -> None:
        """Fill a buffer from an array in logical, row-major form."""
        index = self._program.buffer_index(name)
        facts = self._program.buffers[index]
        rows, columns = int(facts["rows"]), int(facts["columns"])
        size = rows * columns * self._matrices(index)
        if facts["layout"] in kv_cache.LAYOUTS:
            self._write_cache(index, name, np.asarray(array, np.float32))
            return
        if np.size(array) != size:
            raise DeviceError(f"array for {name!r} has shape {np.shape(array)}; accepted: {size} elements")
        if facts["role"] == BufferRole.INDEX:
            self._arrays[index].view(np.int32)[:] = np.asarray(array, np.int32).ravel()
            return
        values = np.ascontiguousarray(array, np.float32)
        if facts["dtype"] == Number.BF16 and facts["layout"] != Layout.LHS_PACKED:
            packed = facts["layout"] == Layout.RHS_PACKED
            matrices = values.reshape(-1, rows, columns)
            bits = np.concatenate([bf16.packed_rhs(m) for m in matrices]) if packed else bf16.rounded(values.ravel())
            self._arrays[index].view(np.uint16)[:] = bits
            return
        if facts["dtype"] in blocks.IN_BLOCKS:
            number = Number(int(facts["dtype"]))
            pack = blocks.packed_floats if facts["layout"] == Layout.RHS_PACKED else blocks.quantized
            matrices = values.reshape(-1, rows, columns)
            self._arrays[index][:] = np.concatenate([pack(number, matrix).ravel() for matrix in matrices])
            return
        flat = self._arrays[index].view(np.float32)
        match Layout(facts["layout"]):
            case Layout.ROW_MAJOR:
                flat[:] = values.ravel()
            case Layout.RHS_PACKED:
                padded = np.zeros((size // (rows * columns), -(-rows // 16) * 16, columns), np.float32)
                padded[:, :rows] = values.reshape(-1, rows, columns)
                flat[:] = padded.reshape(-1, 16, columns).transpose(0, 2, 1).ravel()
            case layout:
                raise DeviceError(f"buffer {name!r} has layout {layout.name}, which is written by tasks only")

    def write_blocks(self, name: str, rows: npt.NDArray[np.uint8]) -> None:
        """Fill a buffer of weights in blocks from the bytes of GGUF's blocks, of experts one matrix after another.

        `rows` may be a part of a mapped file. DeviceError unless the buffer is of blocks, and of that many bytes.
        """
        index = self._program.buffer_index(name)
        facts, array = self._program.buffers[index], self._arrays[index]
        n, k = int(facts["rows"]), int(facts["columns"])
        if facts["dtype"] not in blocks.IN_BLOCKS:
            raise DeviceError(f"buffer {name!r} is of {Number(int(facts['dtype'])).name.lower()}; accepted: blocks")
        number, matrices = Number(int(facts["dtype"])), self._matrices(index)
        if rows.size != matrices * n * blocks.row_bytes(number, k):
            accepted = matrices * n * blocks.row_bytes(number, k)
            raise DeviceError(f"{rows.size} bytes of blocks for {name!r}; accepted: {accepted}")
        if facts["layout"] != Layout.RHS_PACKED:
            array[:] = rows.reshape(-1)
            return
        parts = zip(rows.reshape(matrices, n, -1), np.split(array, matrices), strict=True)
        jobs = [
            partial(blocks.pack_rhs, number, of_file[begin : begin + PACK_PANELS * NR], n, k, packed, begin)
            for of_file, packed in parts
            for begin in range(0, n, PACK_PANELS * NR)
        ]
        with ThreadPoolExecutor(len(self._device.cores)) as pool:
            list(pool.map(lambda job: job(), jobs))  # taking the results raises what failed

    def _write_cache(self, index: int, name: str, values: npt.NDArray[np.float32]) -> None:
        """Fill a cache from keys or values (..., positions, elements) of all its heads; zeros behind them."""
        facts, array = self._program.buffers[index], self._arrays[index]
        rows, columns, number = int(facts["rows"]), int(facts["columns"]), Number(int(facts["dtype"]))
        panels = columns if facts["layout"] == Layout.K_PACKED else -(-columns // NR) * NR
        heads, positions = len(array) // int(rows * panels * number.n_bytes), values.shape[-2]
        if values.size != heads * positions * columns or positions > rows:
            raise DeviceError(
                f"array for {name!r} has shape {values.shape};"
                f" accepted: {heads} heads in all, at most {rows} positions, {columns} elements"
            )
        values = values.reshape(heads, positions, columns)
        array[:] = kv_cache.packed_first(values, number, Layout(int(facts["layout"])), rows)

    def _fill_jobs(self, index: int, model: ModelConfig, seed: int) -> list[Callable[[], int]]:
        facts = self._program.buffers[index]
        name = self._program.buffer_names[index]
        own_seed = int.from_bytes(hashlib.sha256(f"{seed}/{name}".encode()).digest()[:8], "little")
        array = self._arrays[index]
        role = BufferRole(facts["role"])
        if name in ROPE_TABLES:
            self.fill_rope(index, model)
            return []
        if is_routing(name):
            self._route(index, model, self._drawn_routing(index, model, own_seed))
            return []
        if role is BufferRole.INDEX:
            tokens = np.random.default_rng(own_seed).integers(0, model.vocab, len(array) // 4)
            array.view(np.int32)[:] = tokens
            return []
        if role is BufferRole.ACTIVATION:
            return [_touch(array)]
        n, k = int(facts["rows"]), int(facts["columns"])
        if role is BufferRole.WEIGHT and n == 1 and facts["layout"] == Layout.ROW_MAJOR:
            array.view(np.float32)[:] = _gains(name, k, own_seed)
            return []
        scale = (3.0 / k) ** 0.5 if role is BufferRole.WEIGHT else 1.0
        if role is BufferRole.KV and facts["dtype"] != Number.F32:
            return [partial(self._fill_cache, index, own_seed)]
        if role is BufferRole.KV:
            n = len(array) // 4 // k
        matrices = np.split(array, self._matrices(index))
        seeds = [(own_seed + i) % 2**64 for i in range(len(matrices))]
        return [
            job
            for matrix, matrix_seed in zip(matrices, seeds, strict=True)
            for job in self._matrix_jobs(index, matrix, n, k, matrix_seed, scale)
        ]

    def _fill_cache(self, index: int, seed: int) -> int:
        """Draw keys or values of fewer bits than f32, uniformly between -1 and 1."""
        facts, array = self._program.buffers[index], self._arrays[index]
        rows, columns = int(facts["rows"]), int(facts["columns"])
        heads = kv_cache.unpacked(array, Number(int(facts["dtype"])), Layout(int(facts["layout"])), rows, columns)
        drawn = np.random.default_rng(seed).uniform(-1, 1, heads.shape)
        self._write_cache(index, self._program.buffer_names[index], drawn.astype(np.float32))
        return len(array)

    def _matrices(self, index: int) -> int:
        """How many matrices of the same size a buffer of weights holds: one, or that of each expert."""
        facts = self._program.buffers[index]
        if facts["layout"] != Layout.RHS_PACKED:
            return 1
        numbers = format_of_number(int(facts["dtype"]))
        return int(facts["n_bytes"]) // numbers.rhs_bytes(int(facts["rows"]), int(facts["columns"]))

    def _experts_reached(self, routing: int) -> int:
        """Experts to which the plan sends the rows of a routing."""
        ops = self._program.ops
        return int(ops["experts"][(ops["kind"] == TaskKind.EXPERT_GEMM) & (ops["input2"] == routing)][0])

    def _drawn_routing(self, index: int, model: ModelConfig, seed: int) -> npt.NDArray[np.int32]:
        tokens = int(self._program.buffers[index]["columns"]) // model.experts_per_token
        return balanced_routing(tokens, model.experts_per_token, self._experts_reached(index), model.experts, seed)

    def _route(self, index: int, model: ModelConfig, routing: npt.NDArray[np.integer]) -> None:
        name, rows = self._program.buffer_names[index], int(self._program.buffers[index]["columns"])
        if np.shape(routing) != (rows // model.experts_per_token, model.experts_per_token):
            raise DeviceError(
                f"array for {name!r} has shape {np.shape(routing)};"
                f" accepted: {(rows // model.experts_per_token, model.experts_per_token)}"
            )
        table = routing_table(routing, self._experts_reached(index), model.experts, name)
        self._arrays[index].view(np.int32)[:] = table.ravel()

    def _matrix_jobs(
        self, index: int, array: npt.NDArray[np.uint8], n: int, k: int, seed: int, scale: float
    ) -> list[Callable[[], int]]:
        ffi, lib = native()
        if self._program.buffers[index]["dtype"] == Number.BF16:
            packed = bool(self._program.buffers[index]["layout"] == Layout.RHS_PACKED)
            return list(bf16.fill_jobs(array, n, k, packed=packed, isa=self._device.isa, seed=seed, scale=scale))
        if (number := Number(int(self._program.buffers[index]["dtype"]))) in blocks.IN_BLOCKS:
            packed = bool(self._program.buffers[index]["layout"] == Layout.RHS_PACKED)
            isa = self._device.isa
            return list(blocks.fill_jobs(number, array, n, k, packed=packed, isa=isa, seed=seed, scale=scale))
        kernels = lib.sms_kernels_find(self._device.isa.encode())
        pointer = ffi.from_buffer("float *", array, require_writable=True)
        packed = self._program.buffers[index]["layout"] == Layout.RHS_PACKED
        units, unit_rows = (-(-n // 16), 16) if packed else (n, 1)
        step = max(1, FILL_CHUNK_BYTES // (4 * k * unit_rows))

        def job(begin: int, end: int) -> Callable[[], int]:
            def fill() -> int:
                if packed:
                    kernels.fill_rhs(pointer, n, k, begin, end, seed, scale)
                else:
                    kernels.fill_rows(pointer, k, k, begin, end, seed, scale)
                return (end - begin) * unit_rows * k * 4

            return fill

        return [job(begin, min(begin + step, units)) for begin in range(0, units, step)]

    def fill_rope(self, index: int, model: ModelConfig) -> None:
        """Cosines or sines of all positions that a rotary table has room for."""
        positions = np.arange(int(self._program.buffers[index]["rows"]))
        angles = np.outer(positions, inverse_frequencies(model))
        table = np.cos(angles) if self._program.buffer_names[index] == ROPE_TABLES[0] else np.sin(angles)
        self._arrays[index].view(np.float32)[:] = table.ravel()


def _check_tokens(name: str, tokens: npt.NDArray[Any], vocab: int) -> None:
    low, high = int(np.min(tokens)), int(np.max(tokens))
    if low < 0 or high >= vocab:
        raise DeviceError(f"array for {name!r} has tokens {low}..{high}; accepted: 0..{vocab - 1}")


def _gains(name: str, width: int, seed: int) -> npt.NDArray[np.float32]:
    """Gains of a norm lie around 1, a bias around 0."""
    centre = 0.0 if name.endswith(".bias") else 1.0
    noise = np.random.default_rng(seed).uniform(-0.1, 0.1, width)
    return (centre + noise).astype(np.float32)


def _touch(array: npt.NDArray[np.uint8]) -> Callable[[], int]:
    def fill() -> int:
        array[:] = 0  # brings the pages in, so that the first run does not pay for it
        return len(array)

    return fill
