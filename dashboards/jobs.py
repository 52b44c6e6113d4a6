"""Long work in a process of its own: it says how far it is, and can be cancelled at any moment.

A thread could not be cancelled, and would hold up every page meanwhile. The process is a fresh interpreter, so it has
nothing of the server's but the function and its arguments.
"""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Any, Literal

from smesim.errors import SmesimError

Status = Literal["running", "done", "failed", "cancelled"]
_LONGEST_END_S = 5.0


class Job:
    """A call of `function(*arguments, progress=...)`, a module's function, under way.

    >>> job = Job(ablate, model, phase, chip)
    >>> job.poll()                      # now and then, until status is no longer "running"
    >>> job.status, job.what, job.share
    ('running', '+ cooperation', 0.33)
    """

    def __init__(self, function: Callable[..., Any], *arguments: Any) -> None:
        context = multiprocessing.get_context("spawn")
        self._receiving, sending = context.Pipe(duplex=False)
        self._process = context.Process(target=_run, args=(sending, function, arguments), daemon=True)
        self._process.start()
        sending.close()
        self.status: Status = "running"
        self.what, self.share = "starting", 0.0
        self.result: Any = None
        self.error = ""

    def poll(self, wait_s: float = 0.0) -> None:
        """Take in what the process has said so far, waiting for a first word if asked to."""
        try:
            while self.status == "running" and self._receiving.poll(wait_s):
                wait_s = 0.0
                self._take(*self._receiving.recv())
        except EOFError:
            self._process.join(_LONGEST_END_S)
            self._end("failed")
            self.error = f"the worker process ended without a result (exit code {self._process.exitcode})"

    def cancel(self) -> None:
        """End the process; a job that has ended stays as it is."""
        if self.status == "running":
            self._process.kill()
            self._end("cancelled")

    def _take(self, word: str, *said: Any) -> None:
        if word == "progress":
            self.what, self.share = said
        elif word == "done":
            (self.result,) = said
            self._end("done")
        else:
            (self.error,) = said
            self._end("failed")

    def _end(self, status: Status) -> None:
        self.status = status
        self._receiving.close()
        self._process.join(_LONGEST_END_S)


def _run(sending: Connection, function: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
    try:
        result = function(*arguments, progress=lambda what, share: sending.send(("progress", what, share)))
    except SmesimError as error:
        sending.send(("failed", str(error)))
    else:
        sending.send(("done", result))
