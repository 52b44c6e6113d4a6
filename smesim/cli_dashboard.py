"""The command that starts the dashboard, which stands outside the package: it is found, not imported."""

from __future__ import annotations

import os
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated

import typer

from smesim.cli_options import JsonFlag
from smesim.errors import SmesimError

LOCAL = "127.0.0.1"
FILES_VARIABLE = "SMESIM_DASHBOARD_FILES"
"""Tells the dashboard which folder files may be opened from."""
FILES_DEFAULT = "out"
MOST_UPLOAD_MB = 200


def dashboard(
    port: Annotated[int, typer.Option("--port", min=1, max=65535, help="Where it listens.")] = 8501,
    address: Annotated[
        str, typer.Option(help="Who may connect: this machine only, or e.g. 0.0.0.0 for everyone who can reach it.")
    ] = LOCAL,
    files: Annotated[Path, typer.Option(help="The folder that files may be opened from.")] = Path(FILES_DEFAULT),
    json: JsonFlag = False,
) -> None:
    """Look at plans, timelines and errors in a browser, and change the chip. --json prints how it would be started."""
    command, environment = server(port, address, files)
    if json:
        from smesim import show

        show.print_json({"url": f"http://{address}:{port}", "command": command, "environment": environment})
        return
    sys.stdout.flush()
    os.execve(command[0], command, os.environ | environment)


def server(port: int, address: str, files: Path) -> tuple[list[str], dict[str, str]]:
    """The command line of the server, and what is added to its environment. SmesimError without Streamlit."""
    found = find_spec("dashboards") if find_spec("streamlit") else None
    if found is None or found.origin is None:
        raise SmesimError("the dashboard needs Streamlit: pip install 'smesim[dashboard]'")
    folder = Path(found.origin).parent
    options = {
        "server.address": address,
        "server.port": str(port),
        "server.headless": "true",
        "server.maxUploadSize": str(MOST_UPLOAD_MB),
        "server.fileWatcherType": "none",
        "browser.gatherUsageStats": "false",
        "client.toolbarMode": "minimal",
    }
    given = [word for name, value in options.items() for word in (f"--{name}", value)]
    path = os.pathsep.join(filter(None, [str(folder.parent), os.environ.get("PYTHONPATH")]))
    environment = {"PYTHONPATH": path, FILES_VARIABLE: str(files.resolve())}
    return [sys.executable, str(folder / "app.py"), *given], environment
