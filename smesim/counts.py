"""How many instructions a kernel executes, exactly, by class: counted by the emulator, not estimated.

    counted = count_leaves(EmulatedDevice(svl_bits=512), "sme2", ["gemm_f32:64x64x64"])[0]
    counted.counts[InstructionClass.OUTER_PRODUCT]       # 1024

The emulator cuts the code into blocks that are executed from the first instruction to the last, logs the instructions
of each when it first meets it, and each time that a block is executed. So the count is the sum, over the blocks, of
instructions times executions. It logs no more than a range of addresses, that of the native module: where that lies
is asked in a first run. It lies there again in the next ones, because the emulated process has a range of addresses of
its own, where the system places nothing at random.

What is counted begins with the first instruction of the leaf and ends with its return. It includes what the leaf calls
within the native module, which for code in streaming mode is the routine of the ABI that saves somebody else's ZA, and
excludes what it calls in the C library.
"""

from __future__ import annotations

import json
import re
import subprocess
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from smesim.emulation import EmulatedDevice, environment, refuse_without_device
from smesim.errors import DeviceError
from smesim.exec import leaves
from smesim.exec.leaves import BEST_ISA, check_calls
from smesim.instructions import InstructionClass, classify

_ADDRESSES = ("-R", "16G")
_LOG = ("-d", "in_asm,exec,nochain")
_LAYOUTS = 3
"""Runs until the module is given up as one that lies elsewhere each time; the first ever compiles Python files."""
_INSTRUCTION = re.compile(rb"0x([0-9a-f]+): +([0-9a-f]{8})\b")
_EXECUTED = re.compile(rb"Trace \d+: \S+ \[[0-9a-f]+/([0-9a-f]+)/")
_NOT_AFTER_ALL = re.compile(rb"Stopped execution of TB chain before \S+ \[([0-9a-f]+)\]")


@dataclass(frozen=True)
class KernelCount:
    """What one call of a leaf executed."""

    kernel: str
    shape: str
    isa: str
    svl_bits: int
    """0 on a processor without SME."""
    words: Counter[int]
    """How often each instruction word was executed."""

    @property
    def counts(self) -> dict[InstructionClass, int]:
        """Instructions of each class."""
        counts = dict.fromkeys(InstructionClass, 0)
        for word, times in self.words.items():
            counts[classify(word)] += times
        return counts


def count_leaves(device: EmulatedDevice, isa: str | None, calls: Sequence[str]) -> list[KernelCount]:
    """What each call executes; a call is written KERNEL:MxNxK. By default the kernels are the matrix unit's.

    DeviceError if a kernel or shape is unknown, there is no such kernel on that processor, or no emulated device here.
    """
    check_calls(calls)
    refuse_without_device()
    text = _text_of_module()
    for _ in range(_LAYOUTS):
        about, words = _run(device, (isa or BEST_ISA, *calls), text)
        if about["text"] == list(text):
            break
        text = tuple(about["text"])
    else:
        raise DeviceError("emulated processes lie at other addresses each time on this system; nothing can be counted")
    return [
        KernelCount(kernel, shape, about["isa"], about["svl_bits"], counted)
        for (kernel, _, shape), counted in zip((call.partition(":") for call in calls), words, strict=True)
    ]


@lru_cache
def _text_of_module() -> tuple[int, int]:
    """Between which addresses the code of the native module lies, as far as is known before a run."""
    begin, end = _run(EmulatedDevice(), (BEST_ISA,), None)[0]["text"]
    return begin, end


def _run(
    device: EmulatedDevice, arguments: Sequence[str], text: tuple[int, int] | None
) -> tuple[dict[str, Any], list[Counter[int]]]:
    """What the emulated program says about itself, and the instructions of each leaf; logged is the code in `text`."""
    emulator, *words = device.command("-m", leaves.__name__, *arguments)
    log = [] if text is None else [*_LOG, "-dfilter", f"{text[0]:#x}..{text[1] - 1:#x}"]
    with subprocess.Popen(
        [emulator, *_ADDRESSES, *log, *words], env=environment(), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
    ) as process:
        assert process.stderr is not None
        about, counted = read_log(process.stderr)
    if process.returncode != 0 or about is None:
        raise DeviceError(f"the emulated program ended with {process.returncode} and said nothing that can be counted")
    if "error" in about:
        raise DeviceError(about["error"])
    return about, counted


def read_log(lines: Iterable[bytes]) -> tuple[dict[str, Any] | None, list[Counter[int]]]:
    """The line in which the program says where its leaves begin, and the executed words of each, in order."""
    about: dict[str, Any] | None = None
    to_come: list[int] = []
    blocks: dict[int, list[int]] = {}
    block: list[int] = []
    executed: Counter[int] = Counter()
    per_leaf: list[Counter[int]] = []
    for line in lines:
        if found := _EXECUTED.match(line):
            address = int(found[1], 16)
            if to_come and address == to_come[0]:
                to_come.pop(0)
                executed = Counter()
                per_leaf.append(executed)
            executed[address] += 1
        elif found := _INSTRUCTION.match(line):
            if not block:
                blocks[int(found[1], 16)] = block
            block.append(int(found[2], 16))
        elif found := _NOT_AFTER_ALL.match(line):
            executed[int(found[1], 16)] -= 1
        elif line.startswith(b"IN:"):
            block = []
        elif line.startswith(b"{"):
            about = json.loads(line)
            to_come = list(about.get("leaves", []))
    return about, [_words(executed, blocks) for executed in per_leaf]


def _words(executed: Counter[int], blocks: dict[int, list[int]]) -> Counter[int]:
    words: Counter[int] = Counter()
    for address, times in executed.items():
        for word in blocks[address]:
            words[word] += times
    return words
