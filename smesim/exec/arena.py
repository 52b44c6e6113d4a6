"""Memory that programs, and the operators of one, take turns in.

Of the programs of a session one runs at a time, and what passes between its operators is of no use when it has ended.
So the activations of all of them lie in the same memory. Within a program an activation is of use from the operator
that writes it to the last one that reads it: its *life*, of which it has one in each layer. Two whose lives do not
overlap lie in the same place, and so does what a SwiGLU writes and the gate that it reads, element for element.

That lives do not overlap is not a matter of the operators' order, which workers need not keep: one must end before the
other begins whatever they do, so there must be a way from operator to operator along the program's dependencies.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from smesim.exec.allocation import allocate
from smesim.plan.program import NO_BUFFER, PACKING, SLOTS, BufferRole, Program, TaskKind

Bytes = npt.NDArray[np.uint8]

_READS = ("input0", "input1", "input2", "weight", "bias", "packed")
_WRITES = ("packed_out", "output0", "output1")
ALIGNMENT = 4096


class Arena:
    """One piece of memory, replaced where it is too small for a program; those that had it before keep it."""

    def __init__(self) -> None:
        self._block = allocate(0)

    def placed(self, program: Program) -> dict[int, Bytes]:
        """Memory for the activations of a program, by their buffers; what is in it is left from others."""
        sizes = program.buffers["n_bytes"].tolist()
        begins = placed_activations(program)
        needed = max((begin + sizes[i] for i, begin in begins.items()), default=0)
        if needed > len(self._block):
            # What is never touched takes no memory: with room to spare it is replaced less often.
            self._block = allocate(1 << needed.bit_length())
        return {i: self._block[begin : begin + sizes[i]] for i, begin in begins.items()}


@dataclass(frozen=True)
class _Life:
    """The operators between which what is in a buffer is of use; both may touch it."""

    first: int
    last: int


def placed_activations(program: Program) -> dict[int, int]:
    """Where each activation of a program begins, by its buffer: the largest first, each as far in front as the lives of
    those that have a place let it."""
    lives, follows = _lives(program), _followers(program)
    sizes = program.buffers["n_bytes"].tolist()
    in_place = _in_place(program, lives)
    for output, gate in in_place.items():
        after = {life.first: life.last for life in lives.pop(output)}
        lives[gate] = [_Life(life.first, after.get(life.last, life.last)) for life in lives[gate]]
    placed: dict[int, int] = {}

    def before(one: _Life, other: _Life) -> bool:
        return bool(follows[one.last] >> other.first & 1)

    def are_apart(one: int, other: int) -> bool:
        return all(before(a, b) or before(b, a) for a in lives[one] for b in lives[other])

    for index in sorted(lives, key=lambda i: (-sizes[i], i)):
        taken = sorted((placed[other], placed[other] + sizes[other]) for other in placed if not are_apart(index, other))
        begin = 0
        for other_begin, other_end in taken:
            if begin + sizes[index] <= other_begin:
                break
            begin = max(begin, -(-other_end // ALIGNMENT) * ALIGNMENT)
        placed[index] = begin
    return placed | {output: placed[gate] for output, gate in in_place.items()}


def _in_place(program: Program, lives: dict[int, list[_Life]]) -> dict[int, int]:
    """What each SwiGLU writes, and the gates in whose place it may: those of its size that are of no use afterwards."""
    found: dict[int, int] = {}
    sizes = program.buffers["n_bytes"]
    for op in np.flatnonzero(program.ops["kind"] == TaskKind.SWIGLU).tolist():
        output, gate = int(program.ops["output0"][op]), int(program.ops["input0"][op])
        ends = {life.last for life in lives.get(gate, ())}
        if output in lives and sizes[output] == sizes[gate] and {life.first for life in lives[output]} <= ends:
            found[output] = gate
    return found


def _lives(program: Program) -> dict[int, list[_Life]]:
    """The lives of each activation. One that an operator's own tasks hand to each other is not apart from anything,
    because these do not all wait for what comes before; neither is what is read before it is written."""
    ops, n_ops = program.ops, len(program.ops)
    of_slot = {slot: ops[slot].tolist() for slot in SLOTS}
    tasks = program.tasks
    packs = set(np.unique(tasks["op"][np.isin(tasks["kind"], PACKING)]).tolist())
    routes = set(np.unique(tasks["op"][tasks["kind"] == TaskKind.EXPERT_ROUTE]).tolist())
    whole = _Life(0, n_ops - 1)
    lives: dict[int, list[_Life]] = {
        i: [] for i in np.flatnonzero(program.buffers["role"] == BufferRole.ACTIVATION).tolist()
    }
    for op in range(n_ops):
        reads = {of_slot[slot][op] for slot in _READS} - {NO_BUFFER}
        writes = {of_slot[slot][op] for slot in _WRITES} - {NO_BUFFER}
        inside = {of_slot["handover"][op]} | ({of_slot["packed"][op]} if op in packs else set[int]())
        inside |= writes if op in routes else set()
        for buffer in (reads | writes | inside) & lives.keys():
            had = lives[buffer]
            if buffer in inside or (buffer in reads and not had):
                lives[buffer] = [whole]
            elif whole in had:
                continue
            elif buffer in reads:
                had[-1] = _Life(had[-1].first, op)
            else:
                had.append(_Life(op, op))
    for had in lives.values():
        if had and had[-1].first == had[-1].last:  # nobody reads it but who ran the program
            had[-1] = _Life(had[-1].first, n_ops - 1)
    return lives


def _followers(program: Program) -> list[int]:
    """For each operator, as bits of a number, those of which every task waits for all of its tasks."""
    tasks, n_ops = program.tasks, len(program.ops)
    op_of, begins, ends = (tasks[name].tolist() for name in ("op", "successor_begin", "successor_end"))
    successors = program.successors.tolist()
    final = {op: task for task, op in enumerate(op_of)}  # the join that closes it, or its only task
    follows = [0] * n_ops
    for op in range(n_ops - 1, -1, -1):
        if op not in final:
            continue
        for task in successors[begins[final[op]] : ends[final[op]]]:
            if op_of[task] != op:
                follows[op] |= 1 << op_of[task] | follows[op_of[task]]
    return follows
