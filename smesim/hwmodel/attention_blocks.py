"""What the stages of attention do of one block: some query tokens of one KV head times some keys.

Fused attention is these stages block after block, so the same coefficients hold: k-steps of the two products, pairs
under the softmax, visits of a row to a block, and query elements that are scaled at the first block and normalised
behind the last.
"""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple


class BlockShape(NamedTuple):
    """Query tokens begin..end behind `past` cached ones, `group` heads each, and the keys key_begin..key_end."""

    begin: int
    end: int
    past: int
    group: int
    head_dim: int
    key_begin: int
    key_end: int

    @property
    def rows(self) -> int:
        return (self.end - self.begin) * self.group

    @property
    def is_first(self) -> bool:
        return self.key_begin == 0

    @property
    def is_last(self) -> bool:
        return self.key_end >= self.past + self.end

    def visible(self, row: int) -> int:
        """Keys of the block that a row sees."""
        seen = self.past + self.begin + row // self.group + 1 - self.key_begin
        return max(0, min(seen, self.key_end - self.key_begin))

    @property
    def pairs(self) -> int:
        """What all rows see together: each token a key more than the one before it, from the first that sees any until
        one sees them all."""
        tokens, keys = self.end - self.begin, self.key_end - self.key_begin
        seen = self.past + self.begin + 1 - self.key_begin  # by the first token, if there were keys before the block
        some = min(max(0, 1 - seen), tokens)
        every = min(max(some, keys - seen), tokens)
        rising = (every - some) * seen + (some + every - 1) * (every - some) // 2
        return self.group * (rising + (tokens - every) * keys)


    @property
    def seeing_rows(self) -> int:
        """Rows that see any key of the block."""
        return self.group * self._tokens_seeing(1)

    @property
    def cut_rows(self) -> int:
        """Rows that see some keys of the block and not all."""
        return self.group * (self._tokens_seeing(1) - self._tokens_seeing(self.key_end - self.key_begin))

    def _tokens_seeing(self, keys: int) -> int:
        """Tokens that see so many keys of the block, or more."""
        before = self.past + self.begin - self.key_begin  # token t sees before + t + 1, if there are as many
        return (self.end - self.begin) - min(max(0, keys - 1 - before), self.end - self.begin)


class BlockWork(NamedTuple):
    """Of both products k-steps of the micro-tiles by height, and micro-tiles; of the softmax the pairs that the mask
    lets through, the rows that see any key, and those of them that the mask cuts short."""

    qk_ksteps: tuple[tuple[int, int], ...]
    qk_tiles: int
    pv_ksteps: tuple[tuple[int, int], ...]
    pv_tiles: int
    pairs: int
    seeing_rows: int
    cut_rows: int


@lru_cache(maxsize=65536)
def block_work(shape: BlockShape, mr: int, nr: int) -> BlockWork:
    """Count the work strip by strip.

    One whose last row sees v keys of the block computes ceil(v / nr) panels of scores, head_dim k-steps each, and
    head_dim / nr panels of output, v k-steps each.
    """
    strips = -(-shape.rows // mr)
    qk: dict[int, int] = {}
    pv: dict[int, int] = {}
    outputs = -(-shape.head_dim // nr)
    qk_tiles = pv_tiles = 0
    for strip in range(strips):
        begin, end = strip * shape.rows // strips, (strip + 1) * shape.rows // strips
        visible = shape.visible(end - 1)
        scores = -(-visible // nr)
        qk[end - begin] = qk.get(end - begin, 0) + shape.head_dim * scores
        pv[end - begin] = pv.get(end - begin, 0) + outputs * visible
        qk_tiles += scores
        pv_tiles += outputs if visible else 0
    products = tuple(sorted(qk.items())), qk_tiles, tuple(sorted(pv.items())), pv_tiles
    return BlockWork(*products, shape.pairs, shape.seeing_rows, shape.cut_rows)
