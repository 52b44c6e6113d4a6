"""One operator by the short way: the same bits as its program on SimPy, however it is planned.

`python -m pytest -p tests.fuzz tests/sim/test_alone.py -k bits` draws 12,000 operators.
"""

from __future__ import annotations

import dataclasses
import random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from smesim.errors import PlanError, ProgramError
from smesim.hwmodel import library
from smesim.plan.lower import lower, sketch
from smesim.plan.planners import PLANNERS, Planning
from smesim.plan.schema import Plan
from smesim.plan.space import Option, varied
from smesim.sim import ALL_EFFECTS, SimExecutor, without
from smesim.sim.alone import seconds_alone
from smesim.sim.facts import facts_of, facts_of_sketch
from smesim.workload import DType, DTypes, ModelConfig, OperatorGraph, Phase, build_graph
from tests.sim.chips import two_core_chip, unit_chip
from tests.workload.workload_models import tiny, tiny_moe

CHIPS = [two_core_chip(), unit_chip(), *map(library.load, ("apple-m4-pro", "phone-d9500", "server-lx2"))]
MODELS: list[ModelConfig] = [
    tiny(d_model=256, d_ff=544, heads=8, kv_heads=4, vocab=1000),
    tiny(d_model=64, d_ff=96, architecture="qwen3", qk_norm=True),
    tiny_moe(d_model=128, d_expert=96),
]
PHASES = [
    Phase.prefill(1), Phase.prefill(13), Phase.prefill(70, 30), Phase.prefill(150), Phase.prefill(20, 0, 3),
    Phase.decode(9), Phase.decode(900), Phase.decode(400, 2),
]  # fmt: skip


class Drawn:
    """A chooser that rolls dice."""

    def __init__(self, draw: random.Random) -> None:
        self._draw = draw

    def one_of(self, name: str, options: list[Option], usual: Option) -> Any:
        return self._draw.choice([usual, *options])

    def between(self, name: str, low: float, high: float, usual: float) -> float:
        return self._draw.uniform(low, high)


def drawn_plan(draw: random.Random) -> tuple[Plan, OperatorGraph, Any]:
    """A plan of one operator, on a chip: as a planner makes it, or varied until it can run."""
    chip, model, phase = draw.choice(CHIPS), draw.choice(MODELS), draw.choice(PHASES)
    weights = draw.choice([DType.F32, DType.F32, DType.Q8_0, DType.Q4_0])
    graph = build_graph(model, phase, DTypes(weights=weights), layers=1)
    alone = graph.alone(draw.choice([*graph.sites, "attention", "q_proj"]))
    threads = draw.randint(2, min(6, chip.core_count))
    name = draw.choice([*PLANNERS] if chip.unit_instances else ["cpu_only", "roofline"])
    plan = PLANNERS[name](alone, chip, threads, layout_reuse=draw.choice(["full", "none"]))
    planning = Planning(alone, chip, plan.workers, None, True, {"layout_reuse": plan.layout_reuse})
    site = plan.operators[0].site
    if draw.random() < 0.6 and planning.possible[site]:
        other = planning.plan(name, [varied(Drawn(draw), planning, site, plan.operators[0])])
        try:
            lower(other, alone)
        except (PlanError, ProgramError):
            return plan, alone, chip
        return other, alone, chip
    return plan, alone, chip


@settings(max_examples=max(120, settings().max_examples))  # more of them where a profile says so
@given(st.integers(0, 2**32))
def test_an_operator_alone_takes_the_same_bits_by_the_short_way(seed: int) -> None:
    draw = random.Random(seed)
    plan, alone, chip = drawn_plan(draw)
    effects = without(draw.sample(sorted(ALL_EFFECTS), draw.choice([0, 0, 2])))
    program, drawn = lower(plan, alone), sketch(plan, alone)
    assert seconds_alone(drawn, chip, effects) == SimExecutor(chip, effects, "simpy").seconds(program)


@settings(max_examples=40)
@given(st.integers(0, 2**32))
def test_a_sketch_says_what_the_program_says(seed: int) -> None:
    plan, alone, _ = drawn_plan(random.Random(seed))
    program, drawn = lower(plan, alone), sketch(plan, alone)
    assert drawn.op[:21] == program.op_rows[0][:21]
    of_program, of_sketch = facts_of(program), facts_of_sketch(drawn)
    assert of_sketch.pass_bytes == of_program.pass_bytes
    for slot, far_bytes in of_sketch.far_bytes.items():
        assert list(far_bytes) == of_program.far_bytes[slot], slot
    for kind, shares in of_sketch.foreign.items():
        assert list(shares) == list(of_program.foreign[kind]), kind


def test_an_operator_that_a_chip_has_no_place_for_is_refused() -> None:
    graph = build_graph(MODELS[0], Phase.prefill(9), layers=1).alone("q_proj")
    plan = PLANNERS["cpu_only"](graph, library.load("apple-m4-pro"), 6)
    with pytest.raises(ProgramError, match="worker 2 of the program"):
        seconds_alone(sketch(plan, graph), two_core_chip(), ALL_EFFECTS)


def test_a_sketch_that_cannot_be_walked_is_refused() -> None:
    chip, graph = CHIPS[0], build_graph(MODELS[0], Phase.prefill(40), layers=1).alone("gate_proj")
    drawn = sketch(PLANNERS["cpu_only"](graph, chip, 2), graph)
    nowhere = dataclasses.replace(drawn, entries=[[(0, len(drawn.tasks))], []])
    with pytest.raises(ProgramError, match="names a task that is not in its segment"):
        seconds_alone(nowhere, chip, ALL_EFFECTS)
    with pytest.raises(ProgramError, match="never runs"):
        seconds_alone(dataclasses.replace(drawn, entries=[[], []], pools=[]), chip, ALL_EFFECTS)
