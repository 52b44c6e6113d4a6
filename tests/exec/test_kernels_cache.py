"""What appends to narrow caches of keys and values and reads them: f16 and Q8_0, bit for bit as numpy has them."""

import blocks_reference as blocks
import lowp_reference as lowp
import numpy as np
import pytest
from kernel_reference import NR
from lowp_reference import pointer


@pytest.mark.parametrize("isa", lowp.runnable())
def test_rows_go_to_f16_and_back(isa: str) -> None:
    """All f16 there are, widened; and floats of all sizes, in rows that are no whole vectors."""
    table, rng = lowp.find(isa), np.random.default_rng(1)
    every = np.arange(2**16, dtype=np.uint16)
    numbers = every[np.isfinite(every.view(np.float16))]
    wide = np.full(len(numbers) + 1, -1, np.float32)
    table.widen_f16(pointer(numbers), len(numbers), pointer(wide))
    np.testing.assert_array_equal(wide[:-1], numbers.view(np.float16).astype(np.float32))
    assert wide[-1] == -1
    for n in (1, 15, 83):
        x = (rng.standard_normal(n) * 2.0 ** rng.integers(-30, 17, n)).astype(np.float32)
        x[::5] = [-0.0, np.inf, 65519, 65520, 2.0**-25][n % 5]
        out = np.full(n + 1, 7, np.uint16)
        table.narrow_f16(pointer(x), n, pointer(out))
        with np.errstate(over="ignore"):
            np.testing.assert_array_equal(out[:-1], x.astype(np.float16).view(np.uint16))
        assert out[-1] == 7


@pytest.mark.parametrize("isa", blocks.runnable())
def test_rows_go_to_blocks_and_panels_of_them_back(isa: str) -> None:
    table, rng = blocks.find(isa), np.random.default_rng(2)
    positions, d = 3 * NR, 64
    x = rng.standard_normal((positions, d)).astype(np.float32)
    x[5] = 0
    expected = blocks.quantize_rhs(x, "q8")
    numbers, scales = np.empty((positions, d), np.int8), np.empty((positions, d // blocks.BLOCK), np.uint16)
    for row in range(positions):
        table.quantize_row_q8(pointer(x[row]), d, pointer(numbers[row]), pointer(scales[row]))
    np.testing.assert_array_equal(numbers, expected.flat)
    np.testing.assert_array_equal(scales.view(np.float16), expected.scales)
    values = (expected.numbers.astype(np.float64) * expected.scales[..., None].astype(np.float64)).reshape(positions, d)

    packed, packed_scales = blocks.pack_rhs(expected, "q8")
    wide = np.full((2, d, NR), np.nan, np.float32)
    table.widen_rhs_q8(pointer(packed.view(np.int8)), pointer(packed_scales), d, 1, 3, pointer(wide))
    np.testing.assert_array_equal(wide.transpose(0, 2, 1).reshape(2 * NR, d), values[NR:])

    wide = np.full((d // NR, 19, NR), np.nan, np.float32)
    table.widen_rows_q8(pointer(numbers), pointer(scales), 19, d, pointer(wide))
    np.testing.assert_array_equal(wide.transpose(1, 0, 2).reshape(19, d), values[:19])
