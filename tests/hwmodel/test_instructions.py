"""Instructions issue by their interval, wait for their sums, and share a unit; streams hit by a closed form."""

from __future__ import annotations

import math

import pytest

from smesim.errors import ChipError
from smesim.hwmodel import library
from smesim.hwmodel.instructions import Instruction, Sharing, instruction, unit_flop_per_s
from smesim.hwmodel.quantity import Quantity
from smesim.hwmodel.streams import hit_share, stream_bytes_per_s

ALL = {"accumulators", "shared_unit", "oversubscription"}
M4 = library.load("apple-m4")


def quantity(value: float, unit: str = "1") -> Quantity:
    return Quantity(value=value, unit=unit, provenance="measured", source="a test")


OUTER = Instruction(flop=512, cycles=quantity(1.0, "cycles"), latency_cycles=quantity(4.0, "cycles"))
POLITE = Sharing(kept=quantity(0.5), order=quantity(2.0))


def test_a_loop_waits_for_its_sums_until_there_are_enough_of_them() -> None:
    rates = [OUTER.flop_per_s(1e9, chains) for chains in (1, 2, 4, 8)]
    assert rates == [128e9, 256e9, 512e9, 512e9]
    assert unit_flop_per_s(OUTER, 1e9, None, 1, 1, ALL - {"accumulators"}) == 512e9


def test_threads_share_a_unit_and_disturb_each_other() -> None:
    assert unit_flop_per_s(OUTER, 1e9, None, 3, 4, ALL) == 512e9
    assert unit_flop_per_s(OUTER, 1e9, None, 3, 4, ALL - {"shared_unit"}) == 3 * 512e9
    # Two threads of a quarter each keep half: demand 128, peak 512, order 2.
    expected = 1e9 / math.sqrt(128**-2 + 512**-2)
    assert unit_flop_per_s(OUTER, 1e9, POLITE, 2, 1, ALL) == pytest.approx(expected)
    assert unit_flop_per_s(OUTER, 1e9, POLITE, 2, 1, ALL - {"oversubscription"}) == 256e9
    assert unit_flop_per_s(OUTER, 1e9, POLITE, 1, 1, ALL) == 128e9


def test_an_unknown_instruction_is_refused_by_name() -> None:
    with pytest.raises(ChipError, match=r"unit u has no instruction 'mopa_f8'; accepted: mopa_f32"):
        instruction({"mopa_f32": OUTER}, "mopa_f8", "unit u")


@pytest.mark.parametrize("pressure", [1.2, 2.0, 5.0])
def test_hits_solve_the_equation_of_random_replacement(pressure: float) -> None:
    hits = hit_share(pressure * 1e6, 1e6)
    assert 0.0 < hits < 1.0
    assert hits == pytest.approx(math.exp(-(1.0 - hits) * pressure), rel=1e-6)


def test_what_fits_is_hit_always() -> None:
    assert hit_share(1e6, 1e6) == 1.0


def test_streams_of_an_m4() -> None:
    unit = M4.unit_instances[0].unit
    near = stream_bytes_per_s(M4, {0: 1}, "load", 400e3)
    assert near == unit.load_bytes_per_s["L2"].value
    assert stream_bytes_per_s(M4, {0: 3}, "load", 400e3) == unit.multi_driver_load_bytes_per_s["L2"].value
    far = stream_bytes_per_s(M4, {0: 1}, "load", 1e10)
    assert far == pytest.approx(unit.load_bytes_per_s["DRAM"].value, rel=1e-3)
    both = stream_bytes_per_s(M4, {0: 3, 1: 6}, "load", 1e10)
    assert both == pytest.approx(M4.memory.bandwidth_bytes_per_s.value, rel=1e-2)
    assert stream_bytes_per_s(M4, {0: 1}, "store", 3e3) < stream_bytes_per_s(M4, {0: 1}, "store", 300e3)


def test_a_unit_that_was_never_measured_so_has_no_streams() -> None:
    with pytest.raises(ChipError, match="has no 'streams'"):
        stream_bytes_per_s(library.load("apple-m4-pro"), {0: 1}, "load", 1e6)
