"""The command line as a user sees it: what is printed where, and how it ends."""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from smesim import cli

TINY_CONFIG: dict[str, Any] = {
    "architectures": ["LlamaForCausalLM"], "num_hidden_layers": 2, "hidden_size": 64, "intermediate_size": 96,
    "num_attention_heads": 4, "num_key_value_heads": 2, "vocab_size": 160, "rms_norm_eps": 1e-5,
    "max_position_embeddings": 4096, "tie_word_embeddings": True,
}  # fmt: skip


@dataclass(frozen=True)
class Ended:
    """One command that has ended."""

    code: int
    out: str
    err: str

    def json(self) -> Any:
        assert (self.code, self.err) == (0, "")
        return json.loads(self.out)

    def refusal(self) -> str:
        """The one line with which a command refused; nothing else may have been printed."""
        assert self.code == 2, self.err
        assert not self.out
        assert self.err.startswith("smesim: ")
        assert self.err.endswith("\n")
        assert self.err.count("\n") == 1
        assert "Traceback" not in self.err
        return self.err.strip()


@dataclass(frozen=True)
class CommandLine:
    """Runs commands in this process, as the installed `smesim` would, in a folder of its own."""

    folder: Path
    monkeypatch: pytest.MonkeyPatch
    capture: pytest.CaptureFixture[str]

    def __call__(self, *arguments: str | Path) -> Ended:
        self.monkeypatch.setattr(sys, "argv", ["smesim", *map(str, arguments)])
        code = 0
        try:
            cli.main()
        except SystemExit as end:
            code = int(end.code or 0)
        out, err = self.capture.readouterr()
        return Ended(code, out, err)

    def model(self, name: str = "model", **changes: Any) -> Path:
        """A `config.json` of a tiny model; a key changed to None is left out."""
        path = self.folder / name / "config.json"
        path.parent.mkdir(exist_ok=True)
        path.write_text(json.dumps({k: v for k, v in (TINY_CONFIG | changes).items() if v is not None}))
        return path

    def plan(self, phase: str = "prefill:8", *more: str | Path) -> Path:
        """A plan file for the tiny model."""
        path = self.folder / "plan.json"
        arguments = ("plan", "--model", self.model(), "--phase", phase, "--chip", "apple-m4", "--threads", "1")
        assert self(*arguments, "--out", path, *more).code == 0
        return path

    def files(self) -> set[str]:
        return {str(p.relative_to(self.folder)) for p in self.folder.rglob("*") if p.is_file()}
