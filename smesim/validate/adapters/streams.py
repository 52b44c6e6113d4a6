"""Loads, stores and copies through the SME units of an M4, by threads and working set."""

from __future__ import annotations

from smesim.hwmodel.streams import Stream, stream_bytes_per_s
from smesim.validate.adapters.instruction_peaks import place
from smesim.validate.library import Library
from smesim.validate.machines import NotModelled, chip_of
from smesim.validate.records import Question

GIGA = 1e9
_STREAMS: dict[str, Stream] = {"load": "load", "store": "store", "copy": "copy"}


def m4mem(question: Question, library: Library) -> float:
    chip = chip_of(question.chip, library)
    word = question.metric.split()[0]
    if word not in _STREAMS:
        raise NotModelled(f"no stream is known for {question.metric!r}")
    drivers = place(chip, question.threads or 1)
    return stream_bytes_per_s(chip, drivers, _STREAMS[word], question.number("working_set_bytes")) / GIGA
