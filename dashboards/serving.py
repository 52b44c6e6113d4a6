"""A dashboard of one's own for as long as it is needed: what drives a browser starts one with this."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

LONGEST_S = 60.0


@contextmanager
def served(options: Sequence[str] = (), environment: Mapping[str, str] | None = None) -> Iterator[str]:
    """The address of a server on a free port of this machine, started as `smesim dashboard`, ended on leaving.

    `options` are further ones of that command. RuntimeError if it ends, or does not answer within a minute.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"http://127.0.0.1:{free.getsockname()[1]}"
    command = [sys.executable, "-m", "smesim", "dashboard", "--port", address.rpartition(":")[2], *options]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, env=os.environ | dict(environment or {}))
    try:
        deadline = time.monotonic() + LONGEST_S
        while not _answers(f"{address}/_stcore/health"):
            if process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"{' '.join(command)} does not answer at {address}")
            time.sleep(0.05)
        yield address
    finally:
        process.terminate()
        process.wait()


def _answers(address: str) -> bool:
    try:
        return bool(urllib.request.urlopen(address, timeout=1).status == 200)
    except OSError:
        return False
