"""Whole little models with weights in blocks: every quantised operand and every product bit for bit, against numpy.

A model of one layer has a buffer of its own for each tensor, so what each operator read and wrote can be looked at when
the program has run.
"""

from __future__ import annotations

from typing import Any

import blocks_reference as ref
import lowp_reference as lowp
import numpy as np
import pytest
from numpy.typing import NDArray

from smesim.errors import DeviceError
from smesim.exec import blocks
from smesim.exec.tensors import Tensors
from smesim.plan.program import NO_BUFFER, Layout, Number
from smesim.workload import DType, ModelConfig, Phase
from smesim.workload.operators import GroupedLinear, Linear, Quantize
from tests.exec.native_models import CORES, DEVICE, ISAS, Case, Cut, execute, little, little_moe, make_case

FORMATS = (DType.Q8_0, DType.Q4_0, DType.Q4_1)
WIDTHS: dict[str, Any] = {"d_model": 96, "d_ff": 160, "head_dim": 16, "heads": 4, "kv_heads": 2}
DENSE = little(**WIDTHS, architecture="qwen2", qkv_bias=True)
MIXED = little_moe(**WIDTHS, d_expert=64, tied_embeddings=False)
NUMBERS = {dtype: Number[dtype.name] for dtype in FORMATS}


class Ran:
    """What lies in the buffers of a case that has run."""

    def __init__(self, case: Case, tensors: Tensors) -> None:
        self.case, self.tensors, self.program = case, tensors, case.program
        self.graph = case.plan.graph()
        self.operators = dict(zip(case.program.op_names, self.graph.operators, strict=True))

    def op(self, name: str) -> np.void:
        return self.program.ops[self.program.op_names.index(name)]

    def weight(self, name: str) -> ref.Quantized:
        """The integers and scales that stand for a weight, whose f32 numbers were given."""
        return ref.quantize_rhs(self.case.arrays[name], ref.KINDS[self.case.plan.weights_dtype])

    def rows(self, buffer: int) -> NDArray[np.float32]:
        return np.asarray(self.tensors.read(self.program.buffer_names[buffer]))

    def quantized(self, buffer: int, mr: int, rows: slice | None = None) -> ref.Quantized:
        """A left operand, or some rows of it that have strips of their own."""
        facts = self.program.buffers[buffer]
        m, k = int(facts["rows"]), int(facts["columns"])
        raw = self.tensors.arrays[buffer]
        rows = rows or slice(0, m)
        integers = raw[: m * k].view(np.int8).reshape(m, k)[rows].ravel()
        scales = raw[m * k :].view(np.float32).reshape(m, -1)[rows].ravel()
        count = rows.stop - rows.start
        return ref.Quantized(
            lowp.unpack_lhs(integers, count, k, mr, 4).reshape(count, -1, ref.BLOCK),
            lowp.unpack_lhs(scales, count, k // ref.BLOCK, mr, 1),
        )


def ran(model: ModelConfig, phase: Phase, dtype: DType, isa: str, reuse: Any = "full") -> Ran:
    case = make_case(model, phase, Cut(weights=dtype, threads=CORES, reuse=reuse), 5)
    return Ran(case, execute(case, isa)[1])


def check_quantised(run: Ran) -> None:
    """What is quantised is what the operator before it wrote."""
    for name, operator in run.operators.items():
        if isinstance(operator, Quantize):
            op = run.op(name)
            source = run.rows(int(op["input0"]))[-operator.rows :]
            expected = ref.quantize_lhs(source)
            found = run.quantized(int(op["packed_out"]), int(op["lhs_mr"]))
            np.testing.assert_array_equal(found.numbers, expected.numbers)
            np.testing.assert_array_equal(found.scales, expected.scales)


def check_products(run: Ran) -> None:
    for name, operator in run.operators.items():
        op = run.op(name)
        if isinstance(operator, Linear):
            x = run.quantized(int(op["packed"]), max(int(op["lhs_mr"]), 1))
            bias = run.case.arrays[operator.weights[1]] if len(operator.weights) > 1 else None
            expected = ref.product(x, run.weight(operator.weights[0]), bias)
            if not name.endswith(("q_proj", "k_proj")):  # these were rotated in place
                np.testing.assert_array_equal(run.rows(int(op["output0"])), expected, err_msg=name)
        elif isinstance(operator, GroupedLinear):
            check_experts(run, name, operator)


def check_experts(run: Ran, name: str, operator: GroupedLinear) -> None:
    op = run.op(name)
    routing = run.rows(int(op["input2"])).reshape(3, -1)
    experts, out = routing[2], run.rows(int(op["output0"]))
    weights = run.case.arrays[operator.weights[0]]
    for expert in np.unique(experts):
        mine = np.flatnonzero(experts == expert)
        rows = slice(int(mine[0]), int(mine[-1]) + 1)
        x = run.quantized(int(op["packed"]), int(op["lhs_mr"]), rows)
        w = ref.quantize_rhs(weights[expert], ref.KINDS[run.case.plan.weights_dtype])
        np.testing.assert_array_equal(out[rows], ref.product(x, w, None), err_msg=name)
    if operator.gathers:  # which token's row is where
        source = run.op("layers.0.ffn_quantize")
        tokens = run.quantized(int(source["packed_out"]), int(source["lhs_mr"]))
        first = run.quantized(int(op["packed"]), int(op["lhs_mr"]), slice(0, int(np.sum(experts == experts[0]))))
        np.testing.assert_array_equal(first.numbers, tokens.numbers[routing[0][: len(first.numbers)]])


EACH_ISA = [(FORMATS[i % len(FORMATS)], isa) for i, isa in enumerate(ISAS)]
EACH_FORMAT = [(dtype, DEVICE.isa) for dtype in FORMATS]


@pytest.mark.parametrize(("dtype", "isa"), dict.fromkeys(EACH_ISA + EACH_FORMAT), ids=str)
def test_products_of_a_model_are_those_of_its_integers(dtype: DType, isa: str) -> None:
    for model, phase, reuse in (
        (DENSE, Phase.prefill(9, past=3), "full"), (DENSE, Phase.decode(9), "none"), (MIXED, Phase.prefill(7), "full"),
    ):  # fmt: skip
        run = ran(model, phase, dtype, isa, reuse)
        check_quantised(run)
        check_products(run)
        rows = blocks.quantized(NUMBERS[dtype], run.case.arrays["embed.weight"])
        table = blocks.dequantized(NUMBERS[dtype], rows, model.vocab, model.d_model)
        np.testing.assert_array_equal(run.tensors.read("embed.weight"), table)


def test_the_way_that_operands_take_does_not_change_the_numbers() -> None:
    chosen = {reuse: ran(MIXED, Phase.prefill(9), DType.Q4_0, DEVICE.isa, reuse) for reuse in ("full", "none")}
    lm_head = {
        reuse: run.rows(int(run.op("lm_head")["output0"])) for reuse, run in chosen.items()
    }
    np.testing.assert_array_equal(lm_head["full"], lm_head["none"])


@pytest.mark.parametrize("dtype", FORMATS, ids=str)
@pytest.mark.parametrize("model", [DENSE, MIXED], ids=["tied", "experts"])
def test_blocks_of_a_file_are_taken_as_they_are(model: ModelConfig, dtype: DType) -> None:
    case = make_case(model, Phase.decode(3), Cut(weights=dtype), 7)
    tensors = Tensors.from_arrays(case.program, model, DEVICE, case.arrays)
    other = Tensors.from_arrays(case.program, model, DEVICE, case.arrays)
    of_file = [i for i, facts in enumerate(case.program.buffers) if facts["dtype"] in blocks.IN_BLOCKS]
    assert of_file
    for index in of_file:
        name, columns = case.program.buffer_names[index], int(case.program.buffers[index]["columns"])
        rows = blocks.quantized(NUMBERS[dtype], case.arrays[name].reshape(-1, columns))
        other.arrays[index][:] = 0
        other.write_blocks(name, rows)
        np.testing.assert_array_equal(other.arrays[index], tensors.arrays[index])
        expected = blocks.dequantized(NUMBERS[dtype], rows, len(rows), columns)
        np.testing.assert_array_equal(np.reshape(tensors.read(name), expected.shape), expected)
    with pytest.raises(DeviceError, match="1 bytes of blocks for"):
        other.write_blocks(name, np.zeros(1, np.uint8))


def test_weights_from_a_seed_are_those_of_f32_quantised() -> None:
    case, plain = (make_case(MIXED, Phase.decode(3), Cut(weights=dtype), 7) for dtype in (DType.Q4_1, DType.F32))
    tensors, floats = (Tensors.random(c.program, MIXED, DEVICE, seed=3) for c in (case, plain))
    for name, facts in zip(case.program.buffer_names, case.program.buffers, strict=True):
        if facts["dtype"] in blocks.IN_BLOCKS:
            columns = int(facts["columns"])
            values = np.reshape(floats.read(name), (-1, columns))
            rows = blocks.quantized(Number.Q4_1, values)
            expected = blocks.dequantized(Number.Q4_1, rows, len(values), columns)
            np.testing.assert_array_equal(np.reshape(tensors.read(name), expected.shape), expected)


def test_a_weight_takes_the_bytes_of_its_blocks_and_nothing_beside_them() -> None:
    program = make_case(little(**WIDTHS, vocab=64), Phase.decode(3), Cut(weights=DType.Q4_0), 7).program
    for facts in program.buffers[program.buffers["layout"] == Layout.RHS_PACKED]:
        assert facts["n_bytes"] == facts["rows"] * facts["columns"] * 18 // 32
    assert (program.ops["packed"] != NO_BUFFER).any()
