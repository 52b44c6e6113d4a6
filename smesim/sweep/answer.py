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
from collections import Counter
from collections.abc import Callable, Hashable
from dataclasses import fields
from functools import lru_cache
from itertools import count
from typing import Any, Generic, NamedTuple, TypeVar

from smesim import __version__
from smesim.errors import SmesimError, SweepError
from smesim.hwmodel.chip import Chip
from smesim.hwmodel.kept import kept_with
from smesim.hwmodel.library import fingerprint
from smesim.plan.formats import product_format
from smesim.plan.lower import lower, sketch
from smesim.plan.oracle import oracle
from smesim.plan.planners import PLANNERS, divide, parse_forced
from smesim.plan.program import Program
from smesim.plan.schema import Division, OperatorPlan, Plan, check_plan
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
_OF_GRAPH = (
    "model", "phase", "tokens", "context", "past", "batch", "weights", "layers", "last_layer_rows", "site",
)  # fmt: skip
"""Keys of a point that its graph depends on, beside those that change the model."""
_OF_ENTRY = tuple(name for name in OperatorPlan.model_fields if name not in ("site", "reason"))

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


class Answer(NamedTuple):
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
        self._operators: Memo[Hashable, tuple[OperatorGraph, int]] = Memo(OPERATORS_KEPT)
        self._shapes: Memo[tuple[Hashable, ...], int] = Memo(OPERATORS_KEPT)
        self._numbers = count()
        self._answers: Memo[Hashable, Answer] = Memo(ANSWERS_KEPT)
        self._times: Memo[Hashable, float] = Memo(ANSWERS_KEPT)
        self._programs: Memo[Hashable, tuple[OperatorGraph, Program]] = Memo(PROGRAMS_KEPT)
        self._sketches: Memo[Hashable, Sketch] = Memo(SKETCHES_KEPT)
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
        effects = _effects(asked.get("without", ()))
        if asked.get("site") is None:
            graph = self._graph(asked)
            plan = self._plan(asked, graph, chip, effects)
            return _answer(plan, graph, self._seconds(plan, chip, graph, effects))
        alone, number = self._operator(asked)
        shape = (chip_key, number, effects)

        def work_out() -> Answer:
            division = self._division(asked, alone, chip, effects)
            key = (number, division.workers, division.layout_reuse, _how(division.operators[0]))
            time_s = self._times.get(
                (chip_key, effects, key), lambda: self._alone_s(key, division, chip, alone, effects)
            )
            return _answer(division, alone, time_s)

        how = (asked.get("planner", DEFAULT_PLANNER), *map(asked.get, ("threads", "layout_reuse", "overlap", "force")))
        return self._answers.get((shape, how), work_out)

    def _seconds(self, plan: Plan, chip: Chip, graph: OperatorGraph, effects: frozenset[str]) -> float:
        """Simulated seconds of a plan. Points that differ in a chip's numbers are often planned alike, and what a plan
        is lowered to does not depend on the chip."""
        key = (id(graph), plan.workers, plan.layout_reuse, tuple(map(_how, plan.operators)))
        _, program = self._programs.get(key, lambda: (graph, lower(plan, graph)))
        return SimExecutor(chip, effects).seconds(program)

    def _alone_s(
        self, key: Hashable, division: Plan | Division, chip: Chip, alone: OperatorGraph, effects: frozenset[str]
    ) -> float:
        """The same of a single operator, by the shorter way; `key` is the same for those that have the same tasks."""
        if isinstance(division, Plan):
            return self._seconds(division, chip, alone, effects)
        return seconds_alone(self._sketches.get(key, lambda: sketch(division, alone)), chip, effects)

    def _inputs_hash(self, point: Point) -> str:
        """SHA-256 (32 hex digits) of the question, the chip, the model and the version of smesim."""
        chip, model = str(point.values.get("chip")), str(point.values.get("model"))
        of_chip = self._facts.get(("chip", chip), lambda: _content(self._inputs.chips.get(chip)))
        of_model = self._facts.get(("model", model), lambda: _content(self._inputs.models.get(model)))
        content = repr((__version__, sorted(point.values.items()), of_chip, of_model))
        return hashlib.sha256(content.encode()).hexdigest()[:32]

    def _chip(self, asked: dict[str, Value]) -> tuple[Chip, str]:
        """The chip of a point, changed as it says, with its fingerprint."""
        name, changes = _named(asked, "chip"), _changes(asked, "chip.")

        def make() -> tuple[Chip, str]:
            chip = self._inputs.chips[name]
            chip = changed_chip(chip, changes) if changes else chip
            return chip, fingerprint(chip)

        return self._chips.get((name, changes), make)

    def _operator(self, asked: dict[str, Value]) -> tuple[OperatorGraph, int]:
        """The graph of one site of a layer, and a number for all that its time depends on but chip and plan."""

        def alone() -> tuple[OperatorGraph, int]:
            graph, site = self._graph(asked), str(asked["site"])
            if site not in graph.sites:
                given = f"site {site!r} asked for; accepted for {asked['model']}"
                raise SweepError(f"{given}: {', '.join(graph.sites)}")
            found = graph.alone(site)
            return found, self._shapes.get(_shape(found), lambda: next(self._numbers))

        return self._operators.get((*map(asked.get, _OF_GRAPH), _changes(asked, "model.")), alone)

    def _graph(self, asked: dict[str, Value]) -> OperatorGraph:
        """The graph of a point's phase; of one that asks for a site, unless it says otherwise, that of a layer."""
        name, changes, site = _named(asked, "model"), _changes(asked, "model."), asked.get("site")
        phase = _phase(asked)
        weights = product_format(DType.parse(str(asked.get("weights", "f32")))).dtype
        layers: Any = asked.get("layers", None if site is None else 1)
        rows: Any = asked.get("last_layer_rows", "all")
        key = (name, changes, phase, weights, layers, rows)

        def whole() -> OperatorGraph:
            model = self._inputs.models[name]
            model = changed_model(model, changes) if changes else model
            return build_graph(model, phase, DTypes(weights=weights), layers=layers, last_layer_rows=rows)

        return (self._layers if layers == 1 and site is not None else self._models).get(key, whole)

    def _division(
        self, asked: dict[str, Value], alone: OperatorGraph, chip: Chip, effects: frozenset[str]
    ) -> Plan | Division:  # fmt: skip
        """How a single operator is divided; a whole plan where that is needed to simulate it, or to find it."""
        name = str(asked.get("planner", DEFAULT_PLANNER))
        if name not in PLANNERS or not compiled.is_there():
            return self._plan(asked, alone, chip, effects)
        threads: Any = asked.get("threads")
        return divide(name, alone, chip, threads, **_options(asked, alone))

    def _plan(self, asked: dict[str, Value], graph: OperatorGraph, chip: Chip, effects: frozenset[str]) -> Plan:
        name = str(asked.get("planner", DEFAULT_PLANNER))
        threads: Any = asked.get("threads")
        options = _options(asked, graph)
        if name == ORACLE:
            return oracle(
                graph, chip, threads, simulate=lambda plan, alone: _simulated_s(plan, chip, alone, effects), **options
            )
        if name not in PLANNERS:
            known = ", ".join((*PLANNERS, ORACLE))
            raise SweepError(f"planner {name!r} asked for; accepted: {known} ('search' depends on the clock)")
        return PLANNERS[name](graph, chip, threads, **options)


def _options(asked: dict[str, Value], graph: OperatorGraph) -> dict[str, Any]:
    """What a point says to its planner."""
    forced = parse_forced(str(asked["force"]) if "force" in asked else None)
    return {
        "forced": {site: mode for site, mode in forced.items() if "site" not in asked or site in graph.sites},
        "overlap": bool(asked.get("overlap", True)),
        "last_layer_rows": str(asked.get("last_layer_rows", "all")),
        "layout_reuse": str(asked.get("layout_reuse", "full")),
    }


@lru_cache(maxsize=64)
def _effects(off: tuple[str, ...]) -> frozenset[str]:
    return without(off)


def _simulated_s(plan: Plan, chip: Chip, graph: OperatorGraph, effects: frozenset[str]) -> float:
    """Of one operator, planned in a way that may be none that can run."""
    if not compiled.is_there():
        return SimExecutor(chip, effects).seconds(lower(plan, graph))
    check_plan(plan, graph)
    return seconds_alone(sketch(plan, graph), chip, effects)


def _answer(plan: Plan | Division, graph: OperatorGraph, time_s: float) -> Answer:
    alone, first = len(plan.operators) == 1, plan.operators[0]
    modes = sorted(Counter(entry.mode for entry in plan.operators).items()) if not alone else []
    flop, moved_bytes, memory_bytes, rows = kept_with(graph, "totals", lambda: _totals(graph))
    return Answer(
        time_s=time_s,
        flop=flop,
        moved_bytes=moved_bytes,
        memory_bytes=memory_bytes,
        rows=rows,
        workers=len(plan.workers),
        units=len({worker.unit for worker in plan.workers} - {None}),
        mode=first.mode if alone else " ".join(f"{mode}:{n}" for mode, n in modes),
        bound=first.reason.bound if alone and first.reason is not None else None,
    )


def _totals(graph: OperatorGraph) -> tuple[float, float, float, int]:
    """FLOP, bytes that are moved and bytes that are kept, and new tokens."""
    memory_bytes = graph.resident_bytes(Role.WEIGHT) + graph.resident_bytes(Role.KV)
    return float(graph.total_flop()), float(graph.total_moved_bytes()), float(memory_bytes), graph.phase.rows


def _how(entry: OperatorPlan) -> Hashable:
    """All that an entry says of how its operator is run: not what it is called, nor why."""
    facts = entry.__dict__
    return tuple([facts[name] for name in _OF_ENTRY])


def _content(named: Chip | ModelConfig | None) -> str:
    if isinstance(named, Chip):
        return fingerprint(named)
    return "" if named is None else hashlib.sha256(named.model_dump_json().encode()).hexdigest()


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

