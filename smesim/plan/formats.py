"""Products by the number format of their weights: which kernels there are, and how both operands lie packed.

Weights are kept in one format, and it decides in which what is multiplied with them is packed: bf16 for bf16, and for
weights in GGUF's blocks bytes with a scale for each 32. Sums, and keys and values, stay f32. A format whose
products take neighbouring k together has them side by side in groups (`native/include/smesim/layout_lowp.h`,
`layout_blocks.h`), so K is padded to whole groups.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache, cached_property

from smesim.errors import PlanError
from smesim.hwmodel.chip import DTypeName
from smesim.plan.program import Number
from smesim.workload.dtypes import BLOCK_ELEMENTS, DType
from smesim.workload.graph import OperatorGraph
from smesim.workload.operators import Operator

NR = 16
"""Columns of a packed RHS panel; every kernel of every ISA reads panels of this width."""

_GROUPS = {
    Number.F32: 1, Number.BF16: 2, Number.Q8: BLOCK_ELEMENTS, Number.Q8_0: BLOCK_ELEMENTS, Number.Q4_0: BLOCK_ELEMENTS,
    Number.Q4_1: BLOCK_ELEMENTS,
}  # fmt: skip
"""How many neighbouring k lie together, by format."""


def _named(number: Number, side: str) -> str:
    """Name of the layout of an operand; of the left one without its strips' height."""
    group = _GROUPS[number]
    return f"{side}{'' if group == 1 else f'k{group}'}"


def lhs_layout_name(number: Number, mr: int | str) -> str:
    """Name of the layout of a left operand in strips of at most `mr` rows."""
    return _named(number, f"lhs_{number.name.lower()}_m{mr}")


def lhs_bytes(number: Number, rows: int, k: int) -> int:
    """Bytes of a packed left operand of rows x k."""
    return int(rows * _depth(number, k) * number.n_bytes)


def _depth(number: Number, k: int) -> int:
    """K padded to whole groups."""
    return -(-k // _GROUPS[number]) * _GROUPS[number]


@dataclass(frozen=True)
class ProductFormat:
    """One number format of weights, and what products with them are called in plans and chips."""

    dtype: DType
    name: DTypeName
    number: Number

    @cached_property
    def gemm(self) -> str:
        return f"gemm_{self.name}"

    @cached_property
    def gemv(self) -> str:
        return f"gemv_{self.name}"

    @cached_property
    def embed(self) -> str:
        return f"embed_{self.name}"

    @cached_property
    def lhs(self) -> Number:
        """The format of packed left operands."""
        return self.number.lhs

    @cached_property
    def is_quantized(self) -> bool:
        """Whether left operands are quantised before they are packed, and those of one row too."""
        return self.lhs is Number.Q8

    def lhs_layout(self, mr: int | str) -> str:
        """Name of the layout of a left operand in strips of at most `mr` rows."""
        return lhs_layout_name(self.lhs, mr)

    @cached_property
    def rhs_layout(self) -> str:
        return _named(self.number, f"rhs_{self.name}_n{NR}")

    def strip_height(self, layout: str) -> int | None:
        """The height in the name of a layout of left operands, None where it is no such name of this format."""
        return strip_height(self.lhs, layout)

    def lhs_bytes(self, rows: int, k: int) -> int:
        """Bytes of a packed left operand of rows x k."""
        return lhs_bytes(self.lhs, rows, k)

    def rhs_bytes(self, n: int, k: int) -> int:
        """Bytes of packed weights of n rows, which are columns of the product, and depth k."""
        return int(-(-n // NR) * NR * _depth(self.number, k) * self.number.n_bytes)


FORMATS = {
    DType.F32: ProductFormat(DType.F32, "f32", Number.F32),
    DType.BF16: ProductFormat(DType.BF16, "bf16", Number.BF16),
    DType.Q8_0: ProductFormat(DType.Q8_0, "q8_0", Number.Q8_0),
    DType.Q4_0: ProductFormat(DType.Q4_0, "q4_0", Number.Q4_0),
    DType.Q4_1: ProductFormat(DType.Q4_1, "q4_1", Number.Q4_1),
}
"""The formats of weights that there are plans for."""

_BY_NUMBER = {int(numbers.number): numbers for numbers in FORMATS.values()}

CACHES = {DType.F32: Number.F32, DType.F16: Number.F16, DType.Q8_0: Number.Q8_0}
"""The formats of keys and values that there are plans for."""

LHS_NUMBERS = tuple(dict.fromkeys(numbers.lhs for numbers in FORMATS.values()))
"""The formats of packed left operands."""

RHS_PATTERN = "|".join(numbers.rhs_layout for numbers in FORMATS.values())
"""Names of packed weights."""

QUANTIZED_ROWS = lhs_layout_name(Number.Q8, 1)
"""Quantised activations row after row: packed in strips of one row, which is how a matrix times a vector reads them."""

QUANTIZE_KERNEL = "quantize_q8"


def strip_height(number: Number, layout: str) -> int | None:
    """The height in the name of a layout of left operands, None where it is no such name of that format."""
    found = re.fullmatch(lhs_layout_name(number, r"([1-9][0-9]{0,2})"), layout)
    return None if found is None else int(found[1])


def product_format(weights: DType) -> ProductFormat:
    """How products with such weights are done; PlanError names the formats that there are plans for."""
    try:
        return FORMATS[weights]
    except KeyError:
        known = ", ".join(FORMATS)
        raise PlanError(f"weights of {weights!s} asked for; accepted: {known}, which there are kernels for") from None


def cache_number(kv: DType) -> Number:
    """How caches of keys and values lie in a program; PlanError names the formats that there are plans for."""
    try:
        return CACHES[kv]
    except KeyError:
        raise PlanError(f"a KV cache of {kv!s} asked for; accepted: {', '.join(CACHES)}") from None


def weights_format(graph: OperatorGraph) -> ProductFormat:
    """The format of the weights of a graph; PlanError where there are no plans for them."""
    numbers = product_format(graph.dtypes.weights)
    product_format(graph.dtypes.last_product)
    return numbers


def operator_format(graph: OperatorGraph, operator: Operator) -> ProductFormat:
    """The format of the weights of one operator; f32 of one that has none."""
    return product_format(graph.tensors[operator.weights[0]].dtype if operator.weights else DType.F32)


def format_of_number(number: int) -> ProductFormat:
    """The format of weights by its number in a program."""
    return _BY_NUMBER[number]


@cache
def format_of_kernel(kernel: str) -> ProductFormat:
    """The format in the name of a kernel of products or look-ups; PlanError where it names none."""
    return product_format(DType.parse(kernel.partition("_")[2]))
