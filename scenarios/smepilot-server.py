"""SMEPilot on a server: the study of `smepilot.py`, asked of a chip with a unit in each core."""

from __future__ import annotations

from pathlib import Path

from smesim.scenarios.library import study_of

study = study_of(Path(__file__).with_name("smepilot.toml"))


if __name__ == "__main__":
    from smesim.cli_scenario import run_script

    run_script(__file__)
