"""Products by the number format of their weights: which kernels there are, and how both operands lie packed.

Weights are kept in one format, and what is multiplied with them is packed to the same; sums, activations and keys and
values stay f32, and so do the weights of experts. A format whose products take neighbouring k together has them side by
side in groups (`native/include/smesim/layout_lowp.h`), so K is padded to whole groups.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from smesim.errors import PlanError
from smesim.hwmodel.chip import DTypeName
from smesim.plan.program import Number
from smesim.workload.dtypes import DType
from smesim.workload.graph import OperatorGraph

NR = 16
"""Columns of a packed RHS panel; every kernel of every ISA reads panels of this width."""


@dataclass(frozen=True)
class ProductFormat:
    """One number format of weights, by what models, chips and programs call it; `group` is how many neighbouring k are
    multiplied together."""

    dtype: DType
    name: DTypeName
    number: Number
    group: int

    @property
    def gemm(self) -> str:
        return f"gemm_{self.name}"

    @property
    def gemv(self) -> str:
        return f"gemv_{self.name}"

    @property
    def embed(self) -> str:
        return f"embed_{self.name}"

    def lhs_layout(self, mr: int | str) -> str:
        """Name of the layout of a left operand in strips of at most `mr` rows."""
        return f"lhs_{self.name}_m{mr}{self._groups}"

    @property
    def rhs_layout(self) -> str:
        return f"rhs_{self.name}_n{NR}{self._groups}"

    @property
    def _groups(self) -> str:
        return "" if self.group == 1 else f"k{self.group}"

    def strip_height(self, layout: str) -> int | None:
        """The height in the name of a layout of left operands, None where it is no such name of this format."""
        found = re.fullmatch(self.lhs_layout(r"([1-9][0-9]{0,2})"), layout)
        return None if found is None else int(found[1])

    def lhs_bytes(self, rows: int, k: int) -> int:
        """Bytes of a packed left operand of rows x k."""
        return rows * self._depth(k) * self.number.n_bytes

    def rhs_bytes(self, n: int, k: int) -> int:
        """Bytes of packed weights of n rows, which are columns of the product, and depth k."""
        return -(-n // NR) * NR * self._depth(k) * self.number.n_bytes

    def _depth(self, k: int) -> int:
        return -(-k // self.group) * self.group


FORMATS = {
    DType.F32: ProductFormat(DType.F32, "f32", Number.F32, 1),
    DType.BF16: ProductFormat(DType.BF16, "bf16", Number.BF16, 2),
}
"""The formats of weights that there are plans for."""

RHS_PATTERN = "|".join(numbers.rhs_layout for numbers in FORMATS.values())
"""Names of packed weights."""


def product_format(weights: DType) -> ProductFormat:
    """How products with such weights are done; PlanError names the formats that there are plans for."""
    try:
        return FORMATS[weights]
    except KeyError:
        known = ", ".join(FORMATS)
        raise PlanError(f"weights of {weights!s} asked for; accepted: {known}, which there are kernels for") from None


def weights_format(graph: OperatorGraph) -> ProductFormat:
    """The format of the weights of a graph; PlanError where there are no plans for them."""
    numbers = product_format(graph.dtypes.weights)
    if graph.config.is_moe and numbers.dtype is not DType.F32:
        raise PlanError(
            f"weights of {numbers.dtype!s} asked for {graph.config.name}, which has experts; accepted: f32, or a model"
            " without experts"
        )
    return numbers


def format_of_number(number: int) -> ProductFormat:
    """The format of weights by its number in a program."""
    return next(numbers for numbers in FORMATS.values() if numbers.number == number)


def format_of_kernel(kernel: str) -> ProductFormat:
    """The format that the name of a kernel ends with; PlanError where it names none."""
    return product_format(DType.parse(kernel.rpartition("_")[2]))
