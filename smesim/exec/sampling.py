"""From logits to the next token: greedy, or drawn by temperature, top-k and top-p.

The order is that of most engines: the `top_k` largest logits are kept, divided by the temperature, and of their
soft-max the fewest that add up to `top_p` (Holtzman et al., arXiv 1904.09751). The same seed draws the same tokens.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from smesim.errors import SmesimError

MOST_CANDIDATES = 1 << 10
"""Of a draw without top-k: those with the largest logits; what lies behind them has next to no probability."""


@dataclass(frozen=True)
class Sampling:
    """How tokens are chosen; `temperature` 0 takes the likeliest, and the rest is not looked at."""

    temperature: float = 0.0
    top_k: int = 0
    """0 for all."""
    top_p: float = 1.0
    seed: int = 0

    def __post_init__(self) -> None:
        for name, good, accepted in (
            ("temperature", 0.0 <= self.temperature < float("inf"), "finite numbers from 0"),
            ("top_k", self.top_k >= 0, "whole numbers from 0, which is all"),
            ("top_p", 0.0 < self.top_p <= 1.0, "above 0, at most 1"),
            ("seed", self.seed >= 0, "whole numbers from 0"),
        ):
            if not good:
                raise SmesimError(f"{name} is {getattr(self, name)}; accepted: {accepted}")


class Sampler:
    """Draws one token after another from logits of shape (sequences, vocab)."""

    def __init__(self, sampling: Sampling) -> None:
        self.sampling = sampling
        self._random = np.random.default_rng(sampling.seed)

    def draw(self, logits: npt.NDArray[np.float32]) -> npt.NDArray[np.int32]:
        """The next token of each sequence. Among equal logits greedy takes the first."""
        if self.sampling.temperature == 0.0:
            return np.asarray(np.argmax(logits, axis=1), np.int32)
        return np.array([self._one(row) for row in logits], np.int32)

    def _one(self, logits: npt.NDArray[np.float32]) -> int:
        how = self.sampling
        count = min(how.top_k or MOST_CANDIDATES, MOST_CANDIDATES, len(logits))
        kept = np.argpartition(-logits, count - 1)[:count]
        kept = kept[np.lexsort((kept, -logits[kept]))]
        scores = logits[kept].astype(np.float64) / how.temperature
        shares = np.exp(scores - scores[0])
        shares /= shares.sum()
        enough = int(np.searchsorted(np.cumsum(shares), how.top_p)) + 1
        shares = shares[:enough] / shares[:enough].sum()
        return int(kept[min(int(np.searchsorted(np.cumsum(shares), self._random.random())), len(shares) - 1)])
