"""What kind of work an instruction of an Arm processor (A64) does, told from its word.

An instruction is one word of 32 bits, and the architecture hands out the words in groups: bits 28 to 25 say which, SME
has those where they are 0 and bit 31 is set. Words are told apart, not names, because a disassembler that does not know
an instruction has no name for it. The masks are those of the encoding index of the Arm Architecture Reference Manual
(DDI 0487) and of its supplement for SME (DDI 0616).

Each instruction is of one class, by what it does, not by the unit that does it:

- outer_product: two vectors into a tile of ZA, of any type;
- load and store: registers, vectors, slices of ZA from and to memory; a prefetch is a load;
- za_move: between ZA (or ZT0) and vectors, and setting them to zero;
- vector: everything else that vectors, predicates and floating point numbers take part in, the multiply-adds of
  vectors into ZA included;
- branch: what may go on elsewhere, calls and returns included;
- scalar: all the rest; entering and leaving streaming mode too.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import StrEnum


class InstructionClass(StrEnum):
    """What kind of work an instruction does."""

    OUTER_PRODUCT = "outer_product"
    LOAD = "load"
    STORE = "store"
    ZA_MOVE = "za_move"
    VECTOR = "vector"
    SCALAR = "scalar"
    BRANCH = "branch"


def classify(word: int) -> InstructionClass:
    """The class of one instruction. A word that the architecture has not handed out yet counts as scalar."""
    group = word >> 25 & 0b1111
    if group == 0b0000:
        return _of_sme(word) if word >> 31 else InstructionClass.SCALAR
    return _GROUPS.get(group, _scalar)(word)


def _scalar(word: int) -> InstructionClass:
    return InstructionClass.SCALAR


def _vector(word: int) -> InstructionClass:
    return InstructionClass.VECTOR


def _memory(is_store: bool) -> InstructionClass:
    return InstructionClass.STORE if is_store else InstructionClass.LOAD


def _branch_or_system(word: int) -> InstructionClass:
    is_system = word & 0xFF000000 in {0xD4000000, 0xD5000000}
    return InstructionClass.SCALAR if is_system else InstructionClass.BRANCH


def _load_or_store(word: int) -> InstructionClass:
    """Those of general registers, and Neon's. An atomic that reads and writes is a load."""
    operation = word >> 22 & 0b11
    form, of_vectors, is_immediate = word >> 27 & 0b111, word >> 26 & 1, word >> 24 & 1
    if form == 0b011 and not is_immediate:
        return InstructionClass.LOAD  # of a literal
    if form == 0b111 and not is_immediate and word >> 21 & 1 and word >> 10 & 0b11 != 0b10:
        return InstructionClass.LOAD  # atomics, and pointers with a signature
    if form in {0b011, 0b111} and not of_vectors:
        return _memory(is_store=operation == 0)  # the others load: with zeros above, or with the sign
    return _memory(is_store=not operation & 1)


def _of_sve(word: int) -> InstructionClass:
    top = word >> 25
    if top in {0b1000010, 0b1010010, 0b1100010}:
        return InstructionClass.LOAD
    if top == 0b1110010:
        return InstructionClass.STORE
    # Lengths of vectors, and counts of elements, in general registers: ADDVL, RDVL, RDSVL, CNTW, INCW and the like.
    if word & 0xFF20F000 == 0x04205000 or word & 0xFF20F800 == 0x0420E000:
        return InstructionClass.SCALAR
    return InstructionClass.VECTOR


def _of_sme(word: int) -> InstructionClass:
    top = word >> 25
    if top == 0b1110000:  # slices of ZA, and ZT0, from and to memory
        return _memory(is_store=bool(word & 1 << 21))
    if top == 0b1010000 and not word & 1 << 23:  # several vectors from and to memory
        return _memory(is_store=bool(word & 1 << 21))
    if top in {0b1000000, 0b1010000}:
        return InstructionClass.OUTER_PRODUCT
    # MOVA and MOVAZ; ZERO and MOVT, whose neighbours with bit 23 set are table look-ups.
    of_moves = word & 0xFF380000 == 0xC0000000 or word & 0xFFB80000 == 0xC0080000
    return InstructionClass.ZA_MOVE if of_moves else InstructionClass.VECTOR


_GROUPS: dict[int, Callable[[int], InstructionClass]] = {
    0b0010: _of_sve,
    0b1000: _scalar,
    0b1001: _scalar,
    0b1010: _branch_or_system,
    0b1011: _branch_or_system,
    **dict.fromkeys((0b0100, 0b0110, 0b1100, 0b1110), _load_or_store),
    0b0101: _scalar,
    0b1101: _scalar,
    0b0111: _vector,
    0b1111: _vector,
}
"""By bits 28 to 25."""
