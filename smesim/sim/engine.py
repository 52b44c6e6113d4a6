"""Who waits for whom: the workers of one part of a program as SimPy processes.

This is the engine that defines what is simulated. `compiled` is the same in C, equal to it bit for bit.

Each worker is one process that walks its queue. It takes the next task (its own, or one drawn from a pool),
waits until all that the task depends on has ended, pays for the dispatch, and runs the task: first what
cannot overlap, then arithmetic and transfers side by side; the task ends when the last of them does. Joins
have no worker: a join completes when its last predecessor ends, and if these ran on more than one worker,
whoever waits for the join learns of it one barrier later.

Nothing here knows operators, chips or kernels: what a task costs on a worker comes in as `Work`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import simpy

from smesim.hwmodel.sharing import Path
from smesim.sim.clock import RELEASE_TASKS, WORKER_GOES_ON, PhaseEvent
from smesim.sim.fluid import FluidNetwork
from smesim.sim.part import Part, lists, refuse_stuck

NOBODY = -1
SEVERAL = -2

Process = Generator[simpy.Event, None, None]
Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Flow:
    """Bytes that a task moves over some links, at most at `cap_bytes_per_s`."""

    path: Path
    n_bytes: float
    cap_bytes_per_s: float = math.inf


@dataclass(frozen=True, slots=True)
class Work:
    """What a task asks for: `serial_s` first, then `compute_s` and all flows at once; in whole ticks.

    With a `unit`, `compute_s` is of a matrix unit's time, which all its drivers share.
    """

    compute_s: float
    serial_s: float = 0.0
    flows: tuple[Flow, ...] = ()
    unit: str | None = None


@dataclass(frozen=True)
class Machine:
    """What the part runs on. Times in whole ticks, bandwidths in bytes per second.

    `units` are the matrix units: how many seconds of work each does a second for all its drivers together, and for one
    alone. Unless `shared_units`, every driver has a unit to itself.
    """

    links: Mapping[str, float]
    dispatch_s: float
    barrier_s: float
    contention: bool = True
    units: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    shared_units: bool = True


@dataclass(frozen=True)
class PartResult:
    """What happened, seconds since the part started; one value a task, NaN and NOBODY for joins.

    `end_s` is when the last task or join of the part was known to all; `arrivals` are the workers in the
    order in which they came to the end of their queues; `granted` (changes, links) is what the links carry from
    `granted_at_s` on, in the order of the machine's links.
    """

    ready_s: Floats
    start_s: Floats
    end_of_task_s: Floats
    compute_s: Floats
    transfer_s: Floats
    serial_s: Floats
    worker: npt.NDArray[np.int32]
    end_s: float
    arrivals: tuple[int, ...]
    granted_at_s: Floats
    granted: Floats


def run_part(part: Part, machine: Machine, work: Callable[[int, int], Work], arrivals: Sequence[int]) -> PartResult:
    """Simulate a part from time 0.

    `work(task, worker)` says what a task of the part costs on a worker. The workers come to the part in the
    order of `arrivals`, so that is the order in which they draw from pools before the first task starts.
    Raises ProgramError if tasks wait for each other in a circle of workers, so that some never run.
    """
    return _Simulation(part, machine, work).run(arrivals)


class _Simulation:
    def __init__(self, part: Part, machine: Machine, work: Callable[[int, int], Work]) -> None:
        self._part = part
        self._machine = machine
        self._work = work
        self._env = simpy.Environment()
        self._grants: list[tuple[float, tuple[float, ...]]] = []
        self._network = FluidNetwork(
            self._env,
            machine.links,
            contention=machine.contention,
            observer=lambda now, granted: self._grants.append((now, granted)),
        )
        self._units = FluidNetwork(
            self._env,
            {name: together for name, (together, _) in machine.units.items()},
            contention=machine.shared_units,
        )
        n_tasks = part.n_tasks
        self._is_join = part.is_join.tolist()
        self._successors = lists(part.successor_begin, part.successors)
        self._queues = lists(part.queue_begin, part.queue)
        self._pools = lists(part.pool_begin, part.pool_tasks)
        self._waiting_for = part.predecessor_count.tolist()
        self._waiting_worker: dict[int, simpy.Event] = {}
        self._drawn = [0] * len(self._pools)
        self._collects = [NOBODY] * n_tasks  # joins: the worker whose tasks it collects, or SEVERAL
        self._ended: list[int] = []  # tasks and joins whose end is not yet known to their successors
        self._released_s = 0.0
        self._arrivals: list[int] = []
        self._ready_s = [math.nan] * n_tasks
        self._start_s = [math.nan] * n_tasks
        self._end_s = [math.nan] * n_tasks
        self._compute_s = [math.nan] * n_tasks
        self._transfer_s = [math.nan] * n_tasks
        self._serial_s = [math.nan] * n_tasks
        self._worker = [NOBODY] * n_tasks

    def run(self, arrivals: Sequence[int]) -> PartResult:
        for worker in arrivals:
            self._env.process(self._walk(worker))
        self._become_ready([task for task, count in enumerate(self._waiting_for) if count == 0])
        self._env.run()
        end_s = np.array(self._end_s, np.float64)
        refuse_stuck(self._part, end_s, np.array(self._waiting_for, np.int32))
        granted = np.array([granted for _, granted in self._grants], np.float64)
        return PartResult(
            ready_s=np.array(self._ready_s, np.float64),
            start_s=np.array(self._start_s, np.float64),
            end_of_task_s=end_s,
            compute_s=np.array(self._compute_s, np.float64),
            transfer_s=np.array(self._transfer_s, np.float64),
            serial_s=np.array(self._serial_s, np.float64),
            worker=np.array(self._worker, np.int32),
            end_s=self._released_s,
            arrivals=tuple(self._arrivals),
            granted_at_s=np.array([at for at, _ in self._grants], np.float64),
            granted=granted.reshape(-1, len(self._machine.links)),
        )

    # -- workers

    def _tasks_of(self, worker: int) -> Iterator[int]:
        """The tasks of one worker; from a pool, the next that nobody has drawn when the worker gets there."""
        for entry in self._queues[worker]:
            if entry >= 0:
                yield entry
                continue
            pool = -1 - entry
            tasks = self._pools[pool]
            while self._drawn[pool] < len(tasks):
                self._drawn[pool] += 1
                yield tasks[self._drawn[pool] - 1]

    def _walk(self, worker: int) -> Process:
        env = self._env
        dispatch_s = self._machine.dispatch_s
        for task in self._tasks_of(worker):
            if math.isnan(self._ready_s[task]):
                ready = self._waiting_worker[task] = simpy.Event(env)
                yield ready
            work = self._work(task, worker)
            self._worker[task] = worker
            self._start_s[task] = env.now + dispatch_s
            if dispatch_s or work.serial_s:
                yield env.timeout(dispatch_s + work.serial_s)
            began = env.now
            transfers = [self._network.transfer(flow.path, flow.n_bytes, flow.cap_bytes_per_s) for flow in work.flows]
            arithmetic = self._compute(task, work)
            yield from transfers
            self._transfer_s[task] = env.now - began
            yield arithmetic
            self._serial_s[task] = work.serial_s
            self._end_s[task] = env.now
            self._end(task)
            yield PhaseEvent(env, WORKER_GOES_ON + worker)
        self._arrivals.append(worker)

    def _compute(self, task: int, work: Work) -> simpy.Event:
        """The arithmetic of a task, from now on; on a unit it takes the longer, the more tasks the unit works on."""
        if work.unit is None:
            self._compute_s[task] = work.compute_s
            return self._env.timeout(work.compute_s)
        began = self._env.now

        def note(_: simpy.Event) -> None:
            self._compute_s[task] = self._env.now - began

        _, alone = self._machine.units[work.unit]
        done = self._units.transfer((work.unit,), work.compute_s, alone)
        done.callbacks.append(note)
        return done

    # -- dependencies

    def _end(self, node: int) -> None:
        if not self._ended:
            PhaseEvent(self._env, RELEASE_TASKS, callback=self._release)
        self._ended.append(node)

    def _release(self, _: simpy.Event) -> None:
        """Tell the successors of all that ended in this instant."""
        ended, self._ended = sorted(self._ended), []
        self._released_s = self._env.now
        ready: list[int] = []
        for node in ended:
            worker = self._worker[node]
            for successor in self._successors[node]:
                if worker != NOBODY and self._collects[successor] != worker:
                    known = self._collects[successor]
                    self._collects[successor] = worker if known == NOBODY else SEVERAL
                self._waiting_for[successor] -= 1
                if not self._waiting_for[successor]:
                    ready.append(successor)
        self._become_ready(sorted(ready))

    def _become_ready(self, nodes: list[int]) -> None:
        for node in nodes:
            if self._is_join[node]:
                self._complete(node)
                continue
            self._ready_s[node] = self._env.now
            worker = self._waiting_worker.pop(node, None)
            if worker is not None:
                worker.succeed()

    def _complete(self, join: int) -> None:
        if self._collects[join] == SEVERAL and self._machine.barrier_s:
            PhaseEvent(self._env, RELEASE_TASKS, self._machine.barrier_s, callback=lambda _: self._end(join))
        else:
            self._end(join)
