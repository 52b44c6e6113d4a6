"""The program's arrays are C's structs: same sizes, same offsets, same numbers for the same names."""

from __future__ import annotations

from enum import IntEnum

import numpy as np
import pytest

from smesim.exec.device import native
from smesim.plan.program import (
    BUFFER_DTYPE,
    ENTRY_DTYPE,
    OP_DTYPE,
    POOL_DTYPE,
    TASK_DTYPE,
    WORKER_DTYPE,
    EntryKind,
    Layout,
    Number,
    OpRow,
    TaskKind,
    TaskRow,
)
from smesim.plan.records import joined, words
from smesim.plan.tiles import NR

ffi, lib = native()

STRUCTS = {
    "sms_op": OP_DTYPE,
    "sms_task": TASK_DTYPE,
    "sms_worker": WORKER_DTYPE,
    "sms_entry": ENTRY_DTYPE,
    "sms_pool": POOL_DTYPE,
    "sms_buffer": BUFFER_DTYPE,
}
C_TYPES = {"int16_t": "<i2", "int32_t": "<i4", "int64_t": "<i8", "float": "<f4"}


@pytest.mark.parametrize("name", STRUCTS)
def test_each_array_has_the_layout_of_its_struct(name: str) -> None:
    dtype = STRUCTS[name]
    ctype = ffi.typeof(f"struct {name}")
    assert dtype.itemsize == ffi.sizeof(ctype)
    in_c = {field: (fact.offset, C_TYPES[fact.type.cname]) for field, fact in ctype.fields}
    in_numpy = {field: (dtype.fields[field][1], dtype.fields[field][0].str) for field in dtype.names or ()}
    assert in_numpy == in_c


@pytest.mark.parametrize(("dtype", "row"), [(OP_DTYPE, OpRow), (TASK_DTYPE, TaskRow)])
def test_a_row_has_the_fields_of_its_array_and_the_array_no_gaps(dtype: np.dtype[np.void], row: type) -> None:
    assert row._fields == dtype.names
    assert sum(dtype.fields[name][0].itemsize for name in dtype.names) == dtype.itemsize
    array = np.zeros(3, dtype)
    words(array)[1] = 7
    assert [line.tolist() != array[0].tolist() for line in array] == [False, True, False]
    assert joined([array, array[:1]]).tolist() == [*array.tolist(), array[0].tolist()]


ENUMS = [
    (TaskKind, "SMS_", "enum sms_task_kind"),
    (EntryKind, "SMS_ENTRY_", "enum sms_entry_kind"),
    (Layout, "SMS_", "enum sms_layout"),
    (Number, "SMS_NUMBER_", "enum sms_number_format"),
]


@pytest.mark.parametrize(("enum", "prefix", "ctype"), ENUMS, ids=str)
def test_each_enum_has_the_values_of_its_c_enum(enum: type[IntEnum], prefix: str, ctype: str) -> None:
    assert {f"{prefix}{member.name}": member.value for member in enum} == ffi.typeof(ctype).relements


def test_panels_are_as_wide_as_in_c() -> None:
    assert lib.SMS_NR == NR
    assert all(table.nr == NR for table in _tables())


def _tables() -> list[object]:
    tables = []
    while (table := lib.sms_kernels_at(len(tables))) != ffi.NULL:
        tables.append(table)
    return tables


@pytest.mark.parametrize("rows", [1, 5, 6, 7, 40, 41])
@pytest.mark.parametrize("mr", [1, 4, 6, 12])
def test_strips_are_cut_as_in_c(rows: int, mr: int) -> None:
    from smesim.plan.work import strip_row

    strips = lib.sms_lhs_strips(rows, mr)
    here = strip_row(np.arange(strips + 1), np.full(strips + 1, rows), np.full(strips + 1, mr))
    assert here.tolist() == [lib.sms_lhs_strip_row(s, rows, strips) for s in range(strips + 1)]
