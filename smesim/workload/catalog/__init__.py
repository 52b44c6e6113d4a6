"""The catalogue: public models by name.

Each model is one TOML file: where its numbers were published, the parameter count stated there, and in
`[config]` the keys of its Hugging Face `config.json` that fix a shape, with the published values.
"""

from __future__ import annotations

import difflib
import tomllib
from functools import cache
from importlib import resources
from pathlib import Path

from smesim.errors import WorkloadError
from smesim.workload.config import ModelConfig
from smesim.workload.huggingface import config_from_keys

__all__ = ["load", "names", "published_parameters", "source"]


def names() -> tuple[str, ...]:
    """The names of all models, sorted."""
    files = resources.files(__name__).iterdir()
    return tuple(sorted(file.name.removesuffix(".toml") for file in files if file.name.endswith(".toml")))


def load(name_or_path: str | Path) -> ModelConfig:
    """A model by its name here, or by path: a `config.json`, a folder with one, or a `.gguf` file.

    Raises WorkloadError; for an unknown name it lists the names and the closest one.
    """
    if isinstance(name_or_path, str) and name_or_path.lower() in names():
        return _load(name_or_path.lower())
    path = Path(name_or_path)
    if path.suffix.lower() == ".gguf":
        return ModelConfig.from_gguf(path)
    if path.is_dir():
        return ModelConfig.from_hf_json(path / "config.json")
    if path.suffix.lower() == ".json" or path.is_file():
        return ModelConfig.from_hf_json(path)
    raise WorkloadError(_unknown(str(name_or_path)))


def source(name: str) -> str:
    """Where the numbers of a catalogue model were published."""
    return str(_entry(name)["source"])


def published_parameters(name: str) -> float:
    """The parameter count that the authors of a catalogue model state, with as many digits as they give."""
    value = _entry(name)["published_parameters"]
    assert isinstance(value, float)
    return value


@cache
def _load(name: str) -> ModelConfig:
    keys = _entry(name)["config"]
    assert isinstance(keys, dict)
    return config_from_keys(keys, f"catalogue entry {name}", name)


def _entry(name: str) -> dict[str, object]:
    if name not in names():
        raise WorkloadError(_unknown(name))
    return tomllib.loads((resources.files(__name__) / f"{name}.toml").read_text(encoding="utf-8"))


def _unknown(name: str) -> str:
    close = difflib.get_close_matches(name.lower(), names(), n=1)
    hint = f" (did you mean {close[0]}?)" if close else ""
    return (
        f"unknown model {name!r}{hint}; accepted: {', '.join(names())}, "
        "or a path to a config.json, to a folder with one, or to a .gguf file"
    )
