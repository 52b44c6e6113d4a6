"""Answering one point: build the graph, plan, simulate, and say what came out, as one row.

    solver = Solver(inputs)
    solver.row(points.at(17))        # {"time_s": 0.0041, "mode": "cooperative", ...}

A point with a `site` asks for one operator by itself, its weights as far away as the rest of one layer and the head put
them; any other for the whole phase. A solver keeps what the next point is likely to need again: changed chips, graphs,
and of single operators whole answers, by the chip's numbers, the operator's shape and how it is planned, and simulated
times, by the plan as well. So `k_proj` and `v_proj` are one question, and so are two planners that decide alike. What
is kept saves time and changes nothing; a point that raises becomes a row that says so.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Hashable
from dataclasses import dataclass, fields
from itertools import count
from typing import Any, Generic, TypeVar

from smesim import __version__
from smesim.errors import SmesimError, SweepError
from smesim.hwmodel.chip import Chip
from smesim.hwmodel.library import fingerprint
from smesim.plan.formats import product_format
from smesim.plan.lower import lower, sketch
from smesim.plan.oracle import oracle
from smesim.plan.planners import PLANNERS, parse_forced
from smesim.plan.program import Program
from smesim.plan.schema import OperatorPlan, Plan, check_plan
from smesim.plan.sketch import Sketch
from smesim.sim import SimExecutor, compiled, without
from smesim.sim.alone import seconds_alone
from smesim.sweep.inputs import Inputs, changed_chip, changed_model
from smesim.sweep.points import Point
from smesim.sweep.schema import Value
from smesim.workload import DType, DTypes, ModelConfig, OperatorGraph, Phase, build_graph
from smesim.workload.operators import Operator
from smesim.workload.tensors import Role

ORACLE = "oracle"
DEFAULT_PLANNER = "roofline"
CHIPS_KEPT, ANSWERS_KEPT = 64, 50_000
PROGRAMS_KEPT, SKETCHES_KEPT = 32, 1000
"""Programs of whole phases, a megabyte each and more, and what stands for those of single operators."""
MODELS_KEPT, LAYERS_KEPT, OPERATORS_KEPT = 16, 2_000, 10_000
"""Graphs: of all layers, of one, of one operator; the smaller the more."""
_NAMES = {"name", "site", "layer", "inputs", "weights", "outputs"}
"""Fields of an operator that say what it is called and not what it computes."""
_OF_ENTRY = tuple(name for name in OperatorPlan.model_fields if name not in ("site", "reason"))

_SORTED = json.JSONEncoder(sort_keys=True)

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


@dataclass(frozen=True)
class Answer:
    """What a point's plan takes and how it goes about it; bytes are those that the graph must move and keep."""

    time_s: float
    flop: float
    moved_bytes: float
    memory_bytes: float
    rows: int
    workers: int
    units: int
    mode: str
    bound: str | None


COLUMNS: dict[str, tuple[str, Callable[[Answer], float | int | str | None]]] = {
    "time_s": ("simulated seconds", lambda a: a.time_s),
    "tokens_per_s": ("new tokens of all sequences, a second", lambda a: a.rows / a.time_s),
    "flop": ("arithmetic that the operators cannot do without", lambda a: a.flop),
    "flop_per_s": ("that arithmetic, a second", lambda a: a.flop / a.time_s),
    "moved_bytes": ("bytes that the operators read and write", lambda a: a.moved_bytes),
    "memory_bytes": ("weights and KV cache", lambda a: a.memory_bytes),
    "workers": ("threads in the plan", lambda a: a.workers),
    "units": ("matrix units that the plan drives", lambda a: a.units),
    "mode": ("mode of the operator; of a whole phase how many sites have each", lambda a: a.mode),
    "bound": ("what limits the operator by its analytic estimate; empty for a whole phase", lambda a: a.bound),
}
"""What a sweep can be asked for: meaning, and how it follows from an answer."""


class Memo(Generic[K, V]):
    """A dictionary that forgets what it has known longest once it is full; of values that are not None."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._known: dict[K, V] = {}

    def get(self, key: K, make: Callable[[], V]) -> V:
        known = self._known.get(key)
        if known is None:
            known = make()
            if len(self._known) >= self._limit:
                del self._known[next(iter(self._known))]
            self._known[key] = known
        return known


class Solver:
    """Answers points, one after the other; `remember` False works out everything anew."""

    def __init__(self, inputs: Inputs, columns: tuple[str, ...] = (), *, remember: bool = True) -> None:
        for name in columns:
            if name not in COLUMNS:
                raise SweepError(f"columns: unknown column {name!r}; accepted: {', '.join(COLUMNS)}")
        self._inputs = inputs
        self._columns = columns or tuple(COLUMNS)
        self._chips: Memo[Hashable, tuple[Chip, str]] = Memo(CHIPS_KEPT)
        self._models: Memo[Hashable, OperatorGraph] = Memo(MODELS_KEPT)
        self._layers: Memo[Hashable, OperatorGraph] = Memo(LAYERS_KEPT)
        self._operators: Memo[Hashable, OperatorGraph] = Memo(OPERATORS_KEPT)
        self._shapes: Memo[tuple[Hashable, ...], int] = Memo(OPERATORS_KEPT)
        self._numbers = count()
        self._shape_of: Memo[int, tuple[OperatorGraph, int]] = Memo(OPERATORS_KEPT)
        self._answers: Memo[Hashable, Answer] = Memo(ANSWERS_KEPT)
        self._times: Memo[Hashable, float] = Memo(ANSWERS_KEPT)
        self._programs: Memo[Hashable, tuple[OperatorGraph, Program]] = Memo(PROGRAMS_KEPT)
        self._sketches: Memo[Hashable, tuple[OperatorGraph, Sketch]] = Memo(SKETCHES_KEPT)
        self._facts: Memo[tuple[str, str], str] = Memo(ANSWERS_KEPT)
        self._remember = remember

    def row(self, point: Point) -> dict[str, Any]:
        """The point's results by column, with `inputs`, the hash of all that they depend on, `version`, and `error`."""
        row: dict[str, Any] = dict.fromkeys(self._columns)
        row |= {"inputs": None, "version": __version__, "error": None}
        try:
            row["inputs"] = self._inputs_hash(point)
            if not self._remember:
                self._answers, self._times = Memo(ANSWERS_KEPT), Memo(ANSWERS_KEPT)
                self._programs, self._sketches = Memo(PROGRAMS_KEPT), Memo(SKETCHES_KEPT)
            answer = self.answer(point)
            row |= {name: COLUMNS[name][1](answer) for name in self._columns}
        except SmesimError as error:
            row["error"] = str(error)
        except Exception as error:  # one point's defect must not end the others
            row["error"] = f"{type(error).__name__}: {error}"
        return row

    def answer(self, point: Point) -> Answer:
        """What the point asks for; SmesimError for a question without an answer."""
        asked = point.values
        chip, chip_key = self._chip(asked)
        site = asked.get("site")
        graph = self._graph(asked, site)
        planner = str(asked.get("planner", DEFAULT_PLANNER))
        how = (planner, *(asked.get(key) for key in ("threads", "layout_reuse", "overlap", "force")))
        effects = without(asked.get("without", ()))  # type: ignore[arg-type]
        if site is None:
            plan = self._plan(asked, graph, chip, effects)
            return _answer(plan, graph, self._seconds(plan, chip, graph, effects))
        shape = (chip_key, self._shape(graph), effects)

        def work_out() -> Answer:
            plan = self._plan(asked, graph, chip, effects)
            key = (shape, plan.workers, plan.layout_reuse, _how(plan.operators[0]))
            return _answer(plan, graph, self._times.get(key, lambda: self._alone_s(plan, chip, graph, effects)))

        return self._answers.get((shape, how), work_out)

    def _seconds(self, plan: Plan, chip: Chip, graph: OperatorGraph, effects: frozenset[str]) -> float:
        """Simulated seconds of a plan. Points that differ in a chip's numbers are often planned alike, and what a plan
        is lowered to does not depend on the chip."""
        key = (id(graph), plan.workers, plan.layout_reuse, tuple(map(_how, plan.operators)))
        _, program = self._programs.get(key, lambda: (graph, lower(plan, graph)))
        return SimExecutor(chip, effects).seconds(program)

    def _alone_s(self, plan: Plan, chip: Chip, graph: OperatorGraph, effects: frozenset[str]) -> float:
        """The same of a single operator, by the shorter way where the engine for it was built."""
        if not compiled.is_there():
            return self._seconds(plan, chip, graph, effects)
        key = (id(graph), plan.workers, plan.layout_reuse, _how(plan.operators[0]))
        _, drawn = self._sketches.get(key, lambda: (graph, sketch(plan, graph)))
        return seconds_alone(drawn, chip, effects)

    def _shape(self, alone: OperatorGraph) -> int:
        """A number for all that the time of a single operator depends on, but for chip and plan."""
        # By the graph's identity: what is kept holds the graph, so no other can come to lie where it was.
        def number() -> int:
            return self._shapes.get(_shape(alone), lambda: next(self._numbers))

        return self._shape_of.get(id(alone), lambda: (alone, number()))[1]

    def _inputs_hash(self, point: Point) -> str:
        """SHA-256 (32 hex digits) of the question, the chip, the model and the version of smesim."""
        content: list[Any] = [__version__, point.values]
        chip, model = str(point.values.get("chip")), str(point.values.get("model"))
        content.append(self._facts.get(("chip", chip), lambda: _content(self._inputs.chips.get(chip))))
        content.append(self._facts.get(("model", model), lambda: _content(self._inputs.models.get(model))))
        return hashlib.sha256(_SORTED.encode(content).encode()).hexdigest()[:32]

    def _chip(self, asked: dict[str, Value]) -> tuple[Chip, str]:
        """The chip of a point, changed as it says, with its fingerprint."""
        name, changes = _named(asked, "chip"), _changes(asked, "chip.")

        def make() -> tuple[Chip, str]:
            chip = self._inputs.chips[name]
            chip = changed_chip(chip, changes) if changes else chip
            return chip, fingerprint(chip)

        return self._chips.get((name, changes), make)

    def _graph(self, asked: dict[str, Value], site: Value | None) -> OperatorGraph:
        """The graph of a point's phase, or of one site of a layer of it."""
        name, changes = _named(asked, "model"), _changes(asked, "model.")
        phase = _phase(asked)
        weights = product_format(DType.parse(str(asked.get("weights", "f32")))).dtype
        layers: Any = asked.get("layers", None if site is None else 1)
        rows: Any = asked.get("last_layer_rows", "all")
        key = (name, changes, phase, weights, layers, rows)

        def whole() -> OperatorGraph:
            model = self._inputs.models[name]
            model = changed_model(model, changes) if changes else model
            return build_graph(model, phase, DTypes(weights=weights), layers=layers, last_layer_rows=rows)

        def alone() -> OperatorGraph:
            graph = (self._layers if layers == 1 else self._models).get(key, whole)
            if site not in graph.sites:
                raise SweepError(f"site {site!r} asked for; accepted for {name}: {', '.join(graph.sites)}")
            return graph.alone(str(site))

        return self._models.get(key, whole) if site is None else self._operators.get((*key, site), alone)

    def _plan(self, asked: dict[str, Value], graph: OperatorGraph, chip: Chip, effects: frozenset[str]) -> Plan:
        name = str(asked.get("planner", DEFAULT_PLANNER))
        threads: Any = asked.get("threads")
        forced = parse_forced(str(asked["force"]) if "force" in asked else None)
        options: dict[str, Any] = {
            "forced": {site: mode for site, mode in forced.items() if "site" not in asked or site in graph.sites},
            "overlap": bool(asked.get("overlap", True)),
            "last_layer_rows": str(asked.get("last_layer_rows", "all")),
            "layout_reuse": str(asked.get("layout_reuse", "full")),
        }
        if name == ORACLE:
            return oracle(
                graph, chip, threads, simulate=lambda plan, alone: _simulated_s(plan, chip, alone, effects), **options
            )
        if name not in PLANNERS:
            known = ", ".join((*PLANNERS, ORACLE))
            raise SweepError(f"planner {name!r} asked for; accepted: {known} ('search' depends on the clock)")
        return PLANNERS[name](graph, chip, threads, **options)


def _simulated_s(plan: Plan, chip: Chip, graph: OperatorGraph, effects: frozenset[str]) -> float:
    """Of one operator, planned in a way that may be none that can run."""
    if not compiled.is_there():
        return SimExecutor(chip, effects).seconds(lower(plan, graph))
    check_plan(plan, graph)
    return seconds_alone(sketch(plan, graph), chip, effects)


def _answer(plan: Plan, graph: OperatorGraph, time_s: float) -> Answer:
    modes = Counter(entry.mode for entry in plan.operators)
    alone = len(plan.operators) == 1
    reason = plan.operators[0].reason
    return Answer(
        time_s=time_s,
        flop=float(graph.total_flop()),
        moved_bytes=float(graph.total_moved_bytes()),
        memory_bytes=float(graph.resident_bytes(Role.WEIGHT) + graph.resident_bytes(Role.KV)),
        rows=graph.phase.rows,
        workers=len(plan.workers),
        units=len({worker.unit for worker in plan.workers} - {None}),
        mode=next(iter(modes)) if alone else " ".join(f"{mode}:{n}" for mode, n in sorted(modes.items())),
        bound=reason.bound if alone and reason is not None else None,
    )


def _how(entry: OperatorPlan) -> Hashable:
    """All that an entry says of how its operator is run: not what it is called, nor why."""
    facts = entry.__dict__
    return tuple([facts[name] for name in _OF_ENTRY])


def _content(named: Chip | ModelConfig | None) -> str:
    if isinstance(named, Chip):
        return fingerprint(named)
    return "" if named is None else named.model_dump_json()


def _shape(alone: OperatorGraph) -> tuple[Hashable, ...]:
    """All that the time of a single operator depends on, but for chip and plan; names are left out."""
    operator: Operator = alone.operators[0]
    facts = tuple(getattr(operator, field.name) for field in fields(operator) if field.name not in _NAMES)
    ports = tuple(
        tuple((alone.tensors[name].shape, alone.tensors[name].dtype, alone.tensors[name].role) for name in names)
        for names in (operator.inputs, operator.weights, operator.outputs)
    )
    return (operator.kind, facts, ports, alone.elsewhere_bytes, alone.phase, alone.dtypes, alone.config)


def _phase(asked: dict[str, Value]) -> Phase:
    """The phase that `phase`, `tokens`, `context`, `past` and `batch` say together."""
    text = asked.get("phase")
    if text is None:
        raise SweepError("a point has no phase; accepted: phase = 'prefill:512', or 'prefill' beside tokens")
    kind, colon, _ = str(text).partition(":")
    given = Phase.parse(str(text)) if colon else None
    length: Any = asked.get("context" if kind == "decode" else "tokens")
    if length is None and given is not None:
        length = given.context if kind == "decode" else given.tokens
    wrong = "tokens" if kind == "decode" else "context"
    if kind not in ("prefill", "decode") or length is None or (wrong in asked and given is None):
        shown = ", ".join(f"{key}={asked[key]!r}" for key in ("phase", "tokens", "context") if key in asked)
        raise SweepError(
            f"{shown} given; accepted: phase 'prefill' beside tokens, 'decode' beside context, or both in one"
        )
    batch: Any = asked.get("batch", given.batch if given else 1)
    past: Any = asked.get("past", given.past if given else 0)
    return Phase.decode(length, batch) if kind == "decode" else Phase.prefill(length, past, batch)


def _named(asked: dict[str, Value], key: str) -> str:
    if key not in asked:
        raise SweepError(f"a point has no {key}; accepted: {key} in [base], [questions] or [axes]")
    return str(asked[key])


def _changes(asked: dict[str, Value], prefix: str) -> tuple[tuple[str, Value], ...]:
    return tuple((key.removeprefix(prefix), value) for key, value in asked.items() if key.startswith(prefix))

