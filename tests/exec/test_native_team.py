"""The team of threads: unequal tasks, sleepers, cancelling; and the same under sanitizers, where they are to be had."""

from __future__ import annotations

import os
import shutil
import subprocess
import threading
from pathlib import Path

import numpy as np
import pytest

from smesim.exec.device import Device, native
from smesim.plan.program import BUFFER_DTYPE, OP_DTYPE, Program, TaskKind
from tests.sim.programs import T, write_program

ffi, lib = native()
ROOT = Path(__file__).resolve().parents[2]
CORES = Device.here().cores
NANOSECONDS = 1e-9


SHORT, LONG = 1_000, 40_000_000
"""Elements of an addition: well under a microsecond, and some milliseconds."""

FLOATS = np.ones(LONG, np.float32)


class Team:
    """Tasks that add so many floats, on a team of C threads."""

    def __init__(self, program: Program, elements: list[int]) -> None:
        self.program = program
        n = program.n_tasks
        program.tasks["end0"] = [0 if size == 0 else 1 for size in elements]
        program.tasks["op"] = np.arange(n)
        ops = np.zeros(n, OP_DTYPE)
        ops["kind"], ops["m"] = TaskKind.ADD, 1
        ops["n"] = [max(size, 1) for size in elements]
        self.floats = FLOATS
        self.buffers = np.zeros(1, BUFFER_DTYPE)
        self.buffers["rows"], self.buffers["n_bytes"] = 1, self.floats.nbytes
        self.start, self.end = np.zeros(n, np.int64), np.zeros(n, np.int64)
        self.ran_on = np.zeros(n, np.int32)
        self.keep = {
            "ops": ops, "tasks": program.tasks, "workers": program.workers, "entries": program.entries,
            "pools": program.pools, "buffer_facts": self.buffers, "successors": program.successors,
            "pool_tasks": program.pool_tasks, "pending": np.zeros(n, np.int32), "start_ns": self.start,
            "cursors": np.zeros(len(program.pools) + 1, np.int32), "end_ns": self.end, "ran_on": self.ran_on,
        }  # fmt: skip
        run = self.run = ffi.new("struct sms_run *")
        for field, array in self.keep.items():
            setattr(run, field, ffi.cast("void *", array.ctypes.data))
        run.n_tasks, run.n_workers, run.n_pools = n, program.n_workers, len(program.pools)
        self.pointers = [
            ffi.new("void *[]", [ffi.cast("void *", self.floats.ctypes.data)]),
            ffi.new("const struct sms_kernels *[]", [lib.sms_kernels_best()] * program.n_workers),
            ffi.new("void *[]", [ffi.NULL] * program.n_workers),
        ]
        run.buffers, run.kernels, run.scratch = self.pointers
        cores = [CORES[w % len(CORES)] for w in range(program.n_workers)]
        self.team = ffi.gc(lib.sms_team_create(len(cores), cores), lib.sms_team_destroy)

    def start_run(self) -> None:
        lib.sms_team_start(self.team, self.run)

    def wait(self) -> int:
        while (status := lib.sms_team_wait(self.team, 50)) == lib.SMS_RUNNING:
            pass
        return int(status)

    def seconds(self) -> np.ndarray:
        return np.asarray((self.end - self.start) * NANOSECONDS)


def test_unequal_tasks_leave_nobody_behind() -> None:
    tasks = [T(worker=0), *(T(worker=1) for _ in range(50)), T(after=tuple(range(51))), T(worker=1, after=(51,))]
    team = Team(write_program(tasks, 2), [LONG, *([SHORT] * 50), 0, SHORT])
    for _ in range(3):
        team.start_run()
        assert team.wait() == lib.SMS_DONE
        assert team.start[52] >= team.end[51] >= team.end[:51].max()
        assert team.ran_on.tolist() == [0, *([1] * 50), -1, 1]


def test_a_worker_that_fell_asleep_is_woken() -> None:
    """Worker 1 waits for milliseconds, far beyond the time that it spins."""
    team = Team(write_program([T(worker=0), T(worker=1, after=(0,)), T(worker=0, after=(1,))], 2), [LONG, SHORT, SHORT])
    team.start_run()
    assert team.wait() == lib.SMS_DONE
    assert team.seconds()[0] > 1e-3  # ten times as long as a waiter spins, so that this test is about sleepers
    assert team.end[0] <= team.start[1] <= team.end[1] <= team.start[2]


def test_whoever_is_free_draws_the_next_task_of_a_pool() -> None:
    tasks = [T(worker=0), *(T(pool="p") for _ in range(40))]
    team = Team(write_program(tasks, 2), [LONG, *([SHORT] * 40)])
    team.start_run()
    assert team.wait() == lib.SMS_DONE
    assert set(team.ran_on[1:].tolist()) == {1}


def test_a_program_can_run_again_and_again_on_the_same_team() -> None:
    tasks = [T(pool="a"), T(pool="a"), T(after=(0, 1)), T(pool="b", after=(2,)), T(pool="b", after=(2,))]
    team = Team(write_program(tasks, 2), [SHORT, SHORT, 0, SHORT, SHORT])
    for _ in range(200):
        team.start_run()
        assert team.wait() == lib.SMS_DONE
        assert (team.end[[0, 1, 3, 4]] > 0).all()
        assert team.start[3:].min() >= team.end[:2].max()


def test_a_run_can_be_cancelled_from_another_thread_and_the_team_runs_again() -> None:
    serial = [T(worker=i % 2, after=(i - 1,) if i else ()) for i in range(40)]
    team = Team(write_program(serial, 2), [LONG] * 40)
    canceller = threading.Timer(0.05, lib.sms_team_cancel, [team.team])
    team.start_run()
    canceller.start()
    assert team.wait() == lib.SMS_CANCELLED
    canceller.join()
    done = int((team.end > 0).sum())
    assert 0 < done < 40
    assert (team.end[:done] > 0).all()

    lib.sms_team_cancel(team.team)  # nothing is running: nothing happens
    team.keep["ops"]["n"] = SHORT
    team.start_run()
    assert team.wait() == lib.SMS_DONE
    assert (team.end > 0).all()


def test_a_task_that_no_kernel_can_do_ends_the_run() -> None:
    program = write_program([T(worker=0), T(worker=1, after=(0,)), T(worker=0, after=(1,))], 2)
    program.tasks["kind"][1] = max(TaskKind) + 1
    team = Team(program, [SHORT] * 3)
    team.start_run()
    assert team.wait() == lib.SMS_NO_KERNEL
    assert team.end[2] == 0
    program.tasks["kind"][1] = TaskKind.ADD
    team.start_run()
    assert team.wait() == lib.SMS_DONE


def test_workers_are_pinned_to_their_cores() -> None:
    assert lib.sms_team_pinned(Team(write_program([T(worker=0)], 2), [SHORT]).team) == 2


def test_no_core_asked_for_is_no_pinning() -> None:
    team = ffi.gc(lib.sms_team_create(2, [-1, -1]), lib.sms_team_destroy)
    assert lib.sms_team_pinned(team) == 0


@pytest.mark.parametrize("sanitizer", ["thread", "address,undefined"])
def test_the_team_under_a_sanitizer(sanitizer: str, tmp_path: Path) -> None:
    compiler = shutil.which(os.environ.get("CC", "cc"))
    if compiler is None:
        pytest.skip("there is no C compiler")
    flags = [f"-fsanitize={sanitizer}", "-fno-sanitize-recover=all", "-std=c11", "-O1", "-g", "-pthread"]
    empty = tmp_path / "empty.c"
    empty.write_text("int main(void) { return 0; }\n")
    probe = subprocess.run(
        [compiler, *flags, str(empty), "-o", str(tmp_path / "empty")], capture_output=True, check=False
    )
    run = [str(tmp_path / "empty")]
    if probe.returncode or subprocess.run(run, capture_output=True, check=False).returncode:
        pytest.skip(f"{compiler} has no working {sanitizer} sanitizer")
    runtime = ROOT / "native" / "runtime"
    sources = [ROOT / "tests" / "native" / "team_driver.c", runtime / "team.c", runtime / "wait.c"]
    program = tmp_path / "team"
    include = [f"-I{ROOT / 'native' / 'include'}", f"-I{runtime}"]
    subprocess.run([compiler, *flags, "-Wall", "-Wextra", *include, *map(str, sources), "-o", str(program)], check=True)
    result = subprocess.run([program], capture_output=True, text=True, timeout=300, check=False)
    assert result.returncode == 0, result.stderr
