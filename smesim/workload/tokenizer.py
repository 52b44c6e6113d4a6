"""From text to tokens and back, by the vocabulary that a model was trained with.

The work is that of the package `tokenizers` (extra `llm`). A folder brings its own description, `tokenizer.json`. A
GGUF file has the vocabulary in its keys, in one of two kinds, and `tokenizer_gguf.py` builds the same from it. Chats
are written out by the model's own template, in jinja2's sandbox: a template is a program, and comes with the file.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from smesim.errors import WorkloadError
from smesim.files import read_text
from smesim.workload.checkpoint import Checkpoint

if TYPE_CHECKING:
    import tokenizers

NEEDS_EXTRA = "needs the package {}; install it with: pip install 'smesim[llm]'"
Messages = Sequence[Mapping[str, str]]


@dataclass(frozen=True)
class Tokenizer:
    """A vocabulary. `stop` are the tokens that end an answer; `specials` the texts that templates know by name."""

    where: str
    engine: tokenizers.Tokenizer
    stop: tuple[int, ...]
    bos: int | None
    """Begins every text, where the model was trained so and `engine` does not add it itself."""
    specials: Mapping[str, str]
    template: str | None

    @classmethod
    def of(cls, checkpoint: Checkpoint) -> Tokenizer:
        """The tokenizer that comes with a model. WorkloadError where there is none, or it is broken."""
        try:
            import tokenizers  # noqa: F401 - asked for here, so that its absence is said once
        except ImportError:
            raise WorkloadError(f"{checkpoint.path}: its vocabulary {NEEDS_EXTRA.format('tokenizers')}") from None
        if checkpoint.gguf is None:
            return _from_folder(checkpoint.path)
        from smesim.workload.tokenizer_gguf import read_vocabulary

        return read_vocabulary(checkpoint.gguf)

    def encode(self, text: str, *, begin: bool = True) -> list[int]:
        """The tokens of a text; with `begin`, behind the token that begins a text, for models that have one. What
        looks like a special token is one."""
        found: list[int] = self.engine.encode(text, add_special_tokens=begin).ids
        return [self.bos, *found] if begin and self.bos is not None and found[:1] != [self.bos] else found

    def decode(self, tokens: Sequence[int], *, specials: bool = True) -> str:
        """The text of tokens, with special tokens or without."""
        return str(self.engine.decode(list(tokens), skip_special_tokens=not specials))

    def stream(self) -> Callable[[int], str]:
        """A call that takes one token after another and returns the text that has become whole with it."""
        from tokenizers.decoders import DecodeStream

        decoder = DecodeStream(skip_special_tokens=True)
        return lambda token: decoder.step(self.engine, token) or ""

    def chat(self, messages: Messages) -> str:
        """A conversation as the model was trained to see it, up to where its answer begins."""
        if self.template is None:
            raise WorkloadError(f"{self.where}: has no chat template; accepted: --raw, which takes the text as it is")
        try:
            import jinja2
            from jinja2.ext import loopcontrols
            from jinja2.sandbox import ImmutableSandboxedEnvironment
        except ImportError:
            raise WorkloadError(f"{self.where}: its chat template {NEEDS_EXTRA.format('jinja2')}") from None

        def refuse(message: str) -> None:
            raise WorkloadError(f"{self.where}: the chat template refuses these messages: {message}")

        sandbox = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True, extensions=[loopcontrols])
        sandbox.globals.update(raise_exception=refuse, strftime_now=lambda form: datetime.now().strftime(form))
        try:
            written = sandbox.from_string(self.template).render(
                messages=[dict(message) for message in messages], add_generation_prompt=True, **self.specials
            )
        except (jinja2.TemplateError, TypeError, ValueError, ArithmeticError, LookupError, AttributeError) as error:
            raise WorkloadError(f"{self.where}: the chat template fails: {error}") from None
        return str(written)


def _from_folder(folder: Path) -> Tokenizer:
    """`tokenizer.json`, and what its neighbours say of special tokens and chats."""
    import tokenizers

    path = folder / "tokenizer.json"
    text = read_text(path, WorkloadError, "a description of a tokenizer")
    try:
        engine = tokenizers.Tokenizer.from_str(text)
    except Exception as error:  # its package raises nothing more special
        raise WorkloadError(f"{path}: not a tokenizer ({error})") from None
    config = _json(folder / "tokenizer_config.json")
    specials = {
        name: token["content"] if isinstance(token, dict) else str(token)
        for name in ("bos_token", "eos_token", "unk_token", "pad_token")
        if (token := config.get(name)) is not None
    }
    ends = _json(folder / "generation_config.json").get("eos_token_id", [])
    stop = {int(token) for token in (ends if isinstance(ends, list) else [ends])}
    eos = engine.token_to_id(specials.get("eos_token", ""))
    stop |= set() if eos is None else {eos}
    template = config.get("chat_template")
    if (folder / "chat_template.jinja").exists():
        template = read_text(folder / "chat_template.jinja", WorkloadError, "a chat template")
    return Tokenizer(str(path), engine, tuple(sorted(stop)), None, specials, template)


def _json(path: Path) -> dict[str, Any]:
    """The object in a file that need not be there."""
    if not path.exists():
        return {}
    try:
        found = json.loads(read_text(path, WorkloadError, "a JSON object"))
    except (ValueError, RecursionError) as error:
        raise WorkloadError(f"{path}: unreadable JSON ({error})") from None
    if not isinstance(found, dict):
        raise WorkloadError(f"{path}: holds a {type(found).__name__}; expected an object")
    return found
