"""Which rows go to which experts in a run: the routing, and the table by which C finds rows.

A program is made before anything is computed, so it cannot depend on what a router will choose: it says how many
experts are reached and spreads the rows over them evenly (`smesim.plan.tiles.rows_of_expert`). The routing that it is
run with keeps to that. The router does all its work, scores, choice and shares; the expert that a token's share of rank
r is applied to is the routing's. So a prediction and a measurement always have the same work before them.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from smesim.errors import DeviceError
from smesim.plan.tiles import rows_of_expert

Int32s = npt.NDArray[np.int32]


def balanced_routing(tokens: int, per_token: int, reached: int, experts: int, seed: int) -> Int32s:
    """Experts of each token, shape (tokens, per_token): `reached` of them, drawn from a seed, have rows, and as evenly
    as can be.

    They are dealt out in turn. A token's are distinct, since it gets no more than are reached.
    """
    drawn = np.random.default_rng(seed).permutation(experts)[:reached].astype(np.int32)
    return drawn[np.arange(tokens * per_token) % reached].reshape(tokens, per_token)


def routing_table(routing: npt.NDArray[np.integer], reached: int, experts: int, name: str) -> Int32s:
    """The table that `native/runtime/experts.h` describes, shape (3, tokens x per_token).

    DeviceError unless the rows of the routing, shape (tokens, per_token), are as many for each expert as in the plan.
    """
    chosen = np.asarray(routing, np.int32)
    pairs = chosen.ravel()
    if pairs.min() < 0 or pairs.max() >= experts:
        raise DeviceError(f"array for {name!r} has experts {pairs.min()}..{pairs.max()}; accepted: 0..{experts - 1}")
    ordered = np.sort(chosen, axis=1)
    if (ordered[:, 1:] == ordered[:, :-1]).any():
        raise DeviceError(f"array for {name!r} sends a token to one expert twice; accepted: distinct experts")
    found, rows = np.unique(pairs, return_counts=True)
    order = np.argsort(-rows, kind="stable")
    planned = [rows_of_expert(len(pairs), reached, expert) for expert in range(reached)]
    if rows[order].tolist() != planned:
        raise DeviceError(
            f"array for {name!r} reaches {len(found)} experts with {rows.min()} to {rows.max()} rows each;"
            f" accepted: {reached} experts with {min(planned)} to {max(planned)} rows, as in the plan"
        )
    position = np.empty(experts, np.int64)
    position[found[order]] = np.arange(reached)
    pair_of = np.argsort(position[pairs], kind="stable")
    place = np.empty(len(pairs), np.int32)
    place[pair_of] = np.arange(len(pairs))
    return np.stack([pair_of // chosen.shape[1], place, pairs[pair_of]]).astype(np.int32)
