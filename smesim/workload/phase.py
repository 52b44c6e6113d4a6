"""A phase is what the model is asked to do in one pass: read a prompt, or produce one token.

*Prefill* takes `tokens` new tokens of each of `batch` sequences that already have `past` tokens in the KV
cache. *Decode* takes one token of each; its `context` counts that token, so `Phase.decode(1024)` attends to
1024 positions, 1023 of them past. Written, a phase is `prefill:128`, `prefill:128,past=64,batch=2` or
`decode:1024,batch=4`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from smesim.errors import WorkloadError

PhaseKind = Literal["prefill", "decode"]
_LARGEST = 2**31 - 1
_FORMS = "prefill:TOKENS[,past=N][,batch=N] or decode:CONTEXT[,batch=N]"


@dataclass(frozen=True)
class Phase:
    """`batch` sequences of equal length, each with `tokens` new tokens after `past` cached ones."""

    kind: PhaseKind
    batch: int
    tokens: int
    past: int

    def __post_init__(self) -> None:
        if self.kind not in get_args(PhaseKind):
            raise WorkloadError(f"phase kind is {self.kind!r}; accepted: prefill, decode")
        for name, least in (("batch", 1), ("tokens", 1), ("past", 0)):
            value = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool) or value < least:
                raise WorkloadError(
                    f"phase {self.kind}: {name} is {value!r}; accepted: whole numbers from {least}"
                )
        if self.kind == "decode" and self.tokens != 1:
            raise WorkloadError(f"phase decode: tokens is {self.tokens}; accepted: 1 token per sequence")
        if self.batch * self.context > _LARGEST:
            raise WorkloadError(
                f"phase {self.kind}: batch x context is above {_LARGEST}, the most a program holds"
            )

    @classmethod
    def prefill(cls, tokens: int, past: int = 0, batch: int = 1) -> Phase:
        """A prompt of `tokens` after `past` cached positions."""
        return cls("prefill", batch, tokens, past)

    @classmethod
    def decode(cls, context: int, batch: int = 1) -> Phase:
        """One new token at a context length that counts it; `context` is 1 or more."""
        if not isinstance(context, int) or context < 1:
            raise WorkloadError(f"phase decode: context is {context!r}; accepted: whole numbers from 1")
        return cls("decode", batch, 1, context - 1)

    @classmethod
    def parse(cls, text: str) -> Phase:
        """Read a phase as `str(phase)` writes it; WorkloadError says which part is wrong."""
        kind, colon, rest = text.strip().partition(":")
        if not colon or kind not in get_args(PhaseKind):
            raise WorkloadError(f"phase {text!r}: accepted: {_FORMS}")
        length, *options = rest.split(",")
        values = {"": _whole_number(length, text)}
        accepted = ("past", "batch") if kind == "prefill" else ("batch",)
        for option in options:
            key, _, value = option.partition("=")
            key = key.strip()
            if key not in accepted:
                raise WorkloadError(f"phase {text!r}: unknown option {option!r}; accepted: {_FORMS}")
            if key in values:
                raise WorkloadError(f"phase {text!r}: {key} is given twice")
            values[key] = _whole_number(value, text)
        if kind == "decode":
            return cls.decode(values[""], values.get("batch", 1))
        return cls.prefill(values[""], values.get("past", 0), values.get("batch", 1))

    def __str__(self) -> str:
        past = f",past={self.past}" if self.kind == "prefill" and self.past else ""
        batch = f",batch={self.batch}" if self.batch != 1 else ""
        return f"{self.kind}:{self.context if self.kind == 'decode' else self.tokens}{past}{batch}"

    @property
    def context(self) -> int:
        """Positions that the last token attends to, itself included."""
        return self.past + self.tokens

    @property
    def rows(self) -> int:
        """Rows of the activation matrices: the new tokens of all sequences."""
        return self.batch * self.tokens


def _whole_number(text: str, phase: str) -> int:
    digits = text.strip()
    if not digits.isascii() or not digits.isdigit() or len(digits) > len(str(_LARGEST)):
        raise WorkloadError(
            f"phase {phase!r}: {text!r} is not a whole number up to {_LARGEST}; accepted: {_FORMS}"
        )
    return int(digits)
