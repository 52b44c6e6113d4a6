"""Scenarios: a question, what was published about it, what the simulator predicts, and a verdict from both.

A scenario is a TOML file (`schema`) with a short script beside it (`library`), which asks for predicted times (`times`:
our planners and published engines) and returns findings (`findings`): tables, pictures as data, and verdicts that are
worked out from the numbers. `levers` say what would have to be true of the hardware where a published figure is not
met. `pages` writes findings as a page, JSON and pictures.

    path = path_of("kleidiai-m4-pro")
    scenario = load_scenario(path)
    for verdict in run(path, scenario).verdicts:
        print(verdict.says)
"""

from smesim.scenarios.compare import Compared, ratios, table, tried
from smesim.scenarios.findings import (
    Chart,
    Findings,
    Series,
    Table,
    Verdict,
    crossing,
    judged,
    judged_pairs,
    noted,
    number,
    stops_gaining,
)
from smesim.scenarios.levers import pull, scaled
from smesim.scenarios.library import names, path_of, run
from smesim.scenarios.schema import Lever, Published, Scenario, load_scenario, parse_scenario, record_of
from smesim.scenarios.times import Best, Changes, Times

__all__ = [
    "Best",
    "Changes",
    "Chart",
    "Compared",
    "Findings",
    "Lever",
    "Published",
    "Scenario",
    "Series",
    "Table",
    "Times",
    "Verdict",
    "crossing",
    "judged",
    "judged_pairs",
    "load_scenario",
    "names",
    "noted",
    "number",
    "parse_scenario",
    "path_of",
    "pull",
    "ratios",
    "record_of",
    "run",
    "scaled",
    "stops_gaining",
    "table",
    "tried",
]
