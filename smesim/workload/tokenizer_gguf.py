"""The tokenizer that the keys of a GGUF file describe, `tokenizer.ggml.*`.

Two kinds are known. `gpt2` is byte-pair encoding over bytes, with its merges in the order in which they are made, and
a word `pre` that says how text is cut before (`_CUTS`). `llama` is what SentencePiece trains: pieces with scores, where
the pair whose union scores best is merged first; so its merges are all ways to cut a piece in two, ordered by scores,
and what has no piece falls back to bytes.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from smesim.errors import WorkloadError
from smesim.workload.gguf_file import GgufFile
from smesim.workload.tokenizer import Tokenizer

_CASELESS = r"(?:'[sS]|'[tT]|'[rR][eE]|'[vV][eE]|'[mM]|'[lL][lL]|'[dD])"
_REST = r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
_LLAMA3 = _CASELESS + r"|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}" + _REST
_QWEN2 = _CASELESS + r"|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}" + _REST
_GPT2, _DIGITS = "gpt2", "digits, gpt2"

_CUTS = {
    "llama-bpe": _LLAMA3, "llama3": _LLAMA3, "llama-v3": _LLAMA3, "smaug-bpe": _LLAMA3, "dbrx": _LLAMA3,
    "qwen2": _QWEN2, "deepseek-r1-qwen": _QWEN2, "stablelm2": _QWEN2,
    "gpt-2": _GPT2, "mpt": _GPT2, "olmo": _GPT2, "default": _GPT2,
    "smollm": _DIGITS, "starcoder": _DIGITS, "refact": _DIGITS, "command-r": _DIGITS, "codeshell": _DIGITS,
}  # fmt: skip
"""How `pre` cuts text: by a pattern, as GPT-2 did, or digit by digit before that. The names, and the patterns, which
are those of the models' tokenizer.json: llama.cpp, src/llama-vocab.cpp."""
_BEGIN_IF_SILENT = ("llama-bpe", "llama3", "llama-v3")
_WITHOUT_MERGES = ("llama-bpe", "llama3", "llama-v3")
"""Where a whole word that is in the vocabulary is one token, whatever its merges."""

_UNKNOWN, _CONTROL, _USER_DEFINED, _BYTE = 2, 3, 4, 6
_ENDS = (
    "<|im_end|>", "<|eot_id|>", "<|eom_id|>", "<|end_of_text|>", "<|endoftext|>", "<end_of_turn>", "<|end|>", "</s>",
)  # fmt: skip
"""Control tokens that end an answer, by the names that models give them."""
_SPACE = "▁"
_KEY = "tokenizer.ggml."


def read_vocabulary(file: GgufFile) -> Tokenizer:
    """The tokenizer of a GGUF file; WorkloadError names the key that is missing or wrong."""
    return _Vocabulary(file).tokenizer()


class _Vocabulary:
    """The keys of one file, with errors that name them."""

    def __init__(self, file: GgufFile) -> None:
        self.where = str(file.path)
        self.keys: Mapping[str, Any] = file.metadata
        self.kind = self._of("model", str)
        if self.kind not in ("gpt2", "llama"):
            raise self._wrong("model", f"is {self.kind!r}; accepted: gpt2, llama")
        self.tokens: list[str] = self._list("tokens", str)
        self.types: list[int] = self._list("token_type", int, [1] * len(self.tokens))
        if len(self.types) != len(self.tokens):
            raise self._wrong("token_type", f"has {len(self.types)} elements; accepted: {len(self.tokens)}, as tokens")
        self.ids: dict[str, int] = {}
        for number, token in enumerate(self.tokens):
            self.ids.setdefault(token, number)

    def tokenizer(self) -> Tokenizer:
        from tokenizers import AddedToken

        pre = self._of("pre", str, "default")
        engine = self._byte_level(pre) if self.kind == "gpt2" else self._sentence_piece()
        specials = [self.tokens[i] for i, kind in enumerate(self.types) if kind in (_CONTROL, _UNKNOWN)]
        engine.add_special_tokens([AddedToken(token, normalized=False, special=True) for token in specials])
        defined = [self.tokens[i] for i, kind in enumerate(self.types) if kind == _USER_DEFINED]
        engine.add_tokens([AddedToken(token, normalized=False) for token in defined])
        if engine.get_vocab_size() != len(self.ids):
            raise self._wrong("tokens", "and token_type do not belong together")
        silent = self.kind == "llama" or pre in _BEGIN_IF_SILENT
        ids = {name: self._id(f"{name}_token_id") for name in ("bos", "eos", "eot", "eom", "unknown", "padding")}
        begins = self._of("add_bos_token", bool, silent) and ids["bos"] is not None
        ends = {self.ids[name] for name in _ENDS if self.types[self.ids.get(name, 0)] == _CONTROL and name in self.ids}
        stop = ends | {found for name in ("eos", "eot", "eom") if (found := ids[name]) is not None}
        named = {"bos_token": "bos", "eos_token": "eos", "unk_token": "unknown", "pad_token": "padding"}
        texts = {name: self.tokens[i] for name, key in named.items() if (i := ids[key]) is not None}
        template = self.keys.get("tokenizer.chat_template")
        if not isinstance(template, str | None):
            raise WorkloadError(f"{self.where}: tokenizer.chat_template is no text; accepted: a text, or none")
        return Tokenizer(self.where, engine, tuple(sorted(stop)), ids["bos"] if begins else None, texts, template)

    def _byte_level(self, pre: str) -> Any:
        from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers

        if pre not in _CUTS:
            raise self._wrong("pre", f"is {pre!r}; accepted: {', '.join(_CUTS)}")
        merges = [tuple(pair.split(" ", 1)) for pair in self._list("merges", str)]
        for pair in merges:
            if len(pair) != 2 or not {*pair, "".join(pair)} <= self.ids.keys():
                raise self._wrong("merges", f"has {' '.join(pair)!r}; accepted: two tokens whose union is one")
        engine = Tokenizer(models.BPE(vocab=self.ids, merges=merges, ignore_merges=pre in _WITHOUT_MERGES))
        cut = _CUTS[pre]
        as_bytes = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=cut in (_GPT2, _DIGITS))
        before = {_GPT2: [], _DIGITS: [pre_tokenizers.Digits(individual_digits=True)]}
        steps: list[Any] = before.get(cut, [pre_tokenizers.Split(Regex(cut), "isolated")] if cut not in before else [])
        engine.pre_tokenizer = pre_tokenizers.Sequence([*steps, as_bytes])
        engine.decoder = decoders.ByteLevel()
        return engine

    def _sentence_piece(self) -> Any:
        from tokenizers import Tokenizer, decoders, models, normalizers

        scores = self._list("scores", float)
        if len(scores) != len(self.tokens):
            raise self._wrong("scores", f"has {len(scores)} elements; accepted: {len(self.tokens)}, as tokens")
        ranked = []
        for number, token in enumerate(self.tokens):
            if self.types[number] in (_CONTROL, _UNKNOWN, _BYTE):
                continue
            cuts = ((token[:at], token[at:]) for at in range(1, len(token)))
            pairs = [(left, right) for left, right in cuts if left in self.ids and right in self.ids]
            pairs.sort(key=lambda pair: (self.ids[pair[0]], self.ids[pair[1]]))
            ranked += [(-scores[number], pair) for pair in pairs]
        ranked.sort(key=lambda entry: entry[0])
        unknown = self._id("unknown_token_id")
        model = models.BPE(
            vocab=self.ids, merges=[pair for _, pair in ranked], byte_fallback=True, fuse_unk=True,
            unk_token=None if unknown is None else self.tokens[unknown],
        )  # fmt: skip
        engine = Tokenizer(model)
        prefixed = self._of("add_space_prefix", bool, True)
        prepend = [normalizers.Prepend(_SPACE)] if prefixed else []
        engine.normalizer = normalizers.Sequence([*prepend, normalizers.Replace(" ", _SPACE)])
        strip = [decoders.Strip(" ", 1, 0)] if prefixed else []
        engine.decoder = decoders.Sequence(
            [decoders.Replace(_SPACE, " "), decoders.ByteFallback(), decoders.Fuse(), *strip]
        )
        return engine

    def _wrong(self, key: str, what: str) -> WorkloadError:
        return WorkloadError(f"{self.where}: {_KEY}{key} {what}")

    def _of(self, key: str, kind: type, *default: Any) -> Any:
        value = self.keys.get(_KEY + key, *default)
        if value is None:
            raise self._wrong(key, "is missing; expected the vocabulary of a language model")
        if type(value) is not kind:
            raise self._wrong(key, f"is {value!r}; accepted: a {kind.__name__}")
        return value

    def _list(self, key: str, kind: type, *default: Any) -> Any:
        values = self._of(key, list, *default)
        if any(type(value) is not kind for value in values):
            raise self._wrong(key, f"has something else than {kind.__name__}; accepted: these only")
        return values

    def _id(self, key: str) -> int | None:
        value = self.keys.get(_KEY + key)
        if value is not None and (type(value) is not int or not 0 <= value < len(self.tokens)):
            raise self._wrong(key, f"is {value!r}; accepted: 0..{len(self.tokens) - 1}")
        return value
