"""The command that lists and runs scenarios; scenario scripts start it too."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from smesim.cli_options import JsonFlag
from smesim.errors import ScenarioError


def scenario(
    name: Annotated[
        str | None, typer.Argument(metavar="[NAME]", help="A scenario, or a path to its .toml; default: list them.")
    ] = None,
    only: Annotated[
        list[str] | None,
        typer.Option(metavar="KEY=VALUE,...", help="Only these of the entries of a list; may be repeated."),
    ] = None,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="Folder for the page, the JSON and the pictures.")
    ] = None,
    json: JsonFlag = False,
) -> None:
    """Run a scenario: published systems and design questions, predicted, with a verdict."""
    from smesim import show
    from smesim.files import check_writable
    from smesim.scenarios import library, load_scenario, pages

    if name is None:
        known = [load_scenario(library.path_of(each)) for each in library.names()]
        if json:
            show.print_json([{"name": s.name, "title": s.title, "question": s.question} for s in known])
            return
        show.print_table("Scenarios", ("name", "what"), [(s.name, s.title) for s in known])
        return
    path = library.path_of(name)
    asked = load_scenario(path)
    for pair in only or ():
        key, equals, values = pair.partition("=")
        if not equals:
            raise ScenarioError(f"--only {pair!r}; accepted: KEY=VALUE,..., as in chips=apple-m4")
        asked = asked.narrowed(key.strip(), [value.strip() for value in values.split(",")])
    if out is not None:
        check_writable(out / f"{asked.name}.md")
    with show.progress() as bar:
        findings = library.run(path, asked, lambda what: bar(what, 0.5))
    written = pages.write(asked, findings, out) if out is not None else ()
    if json:
        show.print_json(pages.as_json(asked, findings))
        return
    for table in findings.tables:
        show.print_table(table.title, table.columns, [[pages.shown(cell) for cell in row] for row in table.rows])
    for verdict in findings.verdicts:
        mark = pages.MARKS[verdict.met]
        show.print_line(f"{mark}: {verdict.says}" if mark else verdict.says)
    if findings.summary:
        show.print_line(findings.summary)
    for file in written:
        show.print_line(f"Written: {file}")


def run_script(script: str) -> None:
    """Run the scenario of a script's file with the options of `smesim scenario`."""
    from smesim import cli

    sys.argv = ["smesim", "scenario", str(Path(script).with_suffix(".toml")), *sys.argv[1:]]
    cli.main()
