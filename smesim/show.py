"""What the commands print: tables for people, or JSON where `--json` asks for it. Decides nothing, computes nothing."""

from __future__ import annotations

import json as json_module
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table

from smesim.units import format_bytes, format_rate, format_seconds

if TYPE_CHECKING:
    from smesim.counts import KernelCount
    from smesim.exec.device import Device
    from smesim.hwmodel.chip import Chip
    from smesim.plan.diff import Difference
    from smesim.plan.schema import Plan
    from smesim.trace import Trace
    from smesim.workflow import Study
    from smesim.workload import OperatorGraph

_console = Console()


@contextmanager
def progress() -> Iterator[Callable[[str, float], None]]:
    """A progress bar on standard error, if that is a terminal; yields what to call with (what is going on, share)."""
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn

    columns = (TextColumn("{task.description:<44}"), BarColumn(), TaskProgressColumn(), TimeElapsedColumn())
    console = Console(stderr=True)
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task("", total=1.0, visible=False)

        def report(what: str, share: float) -> None:
            bar.update(task, description=what, completed=min(share, 1.0), visible=True)

        yield report


def print_json(content: Any) -> None:
    print(json_module.dumps(content, indent=2, allow_nan=False))


def _table(title: str, *columns: str, text: int = 1, names: int = 1) -> Table:
    """A table whose first `text` columns are left-aligned, of which the first ones are `names`, the others right."""
    table = Table(title=title, title_justify="left")
    for i, column in enumerate(columns):
        # A name or a number that is cut off says nothing, or something wrong; other texts give way.
        table.add_column(column, justify="left" if i < text else "right", no_wrap=i < names or i >= text)
    return table


def print_line(text: str) -> None:
    _console.print(text, highlight=False)


def print_table(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]], *, text: int = 1) -> None:
    table = _table(title, *columns, text=text)
    for row in rows:
        table.add_row(*row)
    _console.print(table)


def doctor(device: Device, probe_path: Path, json: bool) -> None:
    from smesim.exec.device import other_kernels

    facts: dict[str, Any] = {
        "processor": device.processor,
        "architecture": device.architecture,
        "cores": list(device.cores),
        "memory_bytes": device.memory_bytes,
        "available_bytes": device.available_bytes,
        "emulated": device.emulated,
        "matrix_extensions": list(device.matrix_extensions),
        "svl_bits": device.svl_bits or None,
        "sme_features": list(device.sme_features),
        "matrix_units": asdict(device.matrix_units),
        "vector_extensions": list(device.vector_extensions),
        "detected_by": device.detected_by,
        "overrides": list(device.overrides),
        "isa": device.isa,
        "matrix_isa": device.matrix_isa,
        "stand_in": dict(zip(("matrix_isa", "isa"), device.stand_in_isas, strict=True)),
        "kernels": [asdict(table) for table in device.kernels],
        "other_kernels": {numbers: list(isas) for numbers, isas in other_kernels().items()},
        "last_probe": str(probe_path) if probe_path.exists() else None,
    }
    if json:
        print_json(facts)
        return
    table = _table("This machine", "what", "is", text=2)
    table.add_row("processor", f"{device.processor} ({device.architecture})")
    if device.emulated:
        table.add_row("emulated", "yes: its numbers are those of hardware, its times are not")
    table.add_row("usable cores", ", ".join(map(str, device.cores)))
    table.add_row("memory", f"{format_bytes(device.memory_bytes)}, {format_bytes(device.available_bytes)} available")
    svl = f"; streaming vectors of {device.svl_bits} bits" if device.svl_bits else ""
    table.add_row("matrix extension", (", ".join(device.matrix_extensions) or "none") + svl)
    if device.sme_features:
        table.add_row("SME features", ", ".join(device.sme_features))
    units = device.matrix_units
    table.add_row("matrix units", f"{'unknown' if units.count is None else units.count}: {units.source}")
    table.add_row("vector extensions", ", ".join(device.vector_extensions) or "none")
    table.add_row("detected by", device.detected_by)
    table.add_row("overridden by", ", ".join(device.overrides) or "nothing")
    chosen = {device.isa: "chosen", device.matrix_isa: "chosen for matrix units"}
    for kernels in device.kernels:
        state = chosen.get(kernels.isa, "runs here" if kernels.supported else "this CPU lacks it")
        purpose = ", for tests only" if kernels.test_only else ", for stand-ins only" if kernels.stand_in else ""
        table.add_row(f"kernels {kernels.isa}", f"{state}{purpose}")
    table.add_row("stand-in for a matrix unit", "{} kernels, beside cores with {}".format(*device.stand_in_isas))
    for numbers, isas in other_kernels().items():
        table.add_row(f"kernels for {numbers}", ", ".join(isas))
    table.add_row("last probe", facts["last_probe"] or "none; run 'smesim probe --out F'")
    _console.print(table)


def models(json: bool) -> None:
    from smesim.workload import catalog

    loaded = [(name, catalog.load(name)) for name in catalog.names()]
    if json:
        print_json([{"name": name, **model.model_dump(mode="json")} for name, model in loaded])
        return
    table = _table("Models", "name", "family", "layers", "d_model", "d_ff", "heads/KV", "vocab", text=2)
    for name, m in loaded:
        d_ff = f"{m.experts} x {m.d_expert}" if m.is_moe else m.d_ff
        numbers = (m.layers, m.d_model, d_ff, f"{m.heads}/{m.kv_heads}", m.vocab)
        table.add_row(name, m.architecture, *map(str, numbers))
    _console.print(table)


def chips(json: bool) -> None:
    from smesim.hwmodel import library

    loaded = [library.load(name) for name in library.names()]
    if json:
        print_json([_chip_summary(c) for c in loaded])
        return
    table = _table("Chips", "name", "description", "cores", "matrix units", "DRAM", "how it was got", text=2)
    for c in loaded:
        memory = c.memory.bandwidth_bytes_per_s
        counts = (str(c.core_count), str(len(c.unit_instances)))
        table.add_row(c.name, c.description, *counts, format_rate(memory.value, "B"), memory.provenance)
    _console.print(table)


def _chip_summary(c: Chip) -> dict[str, Any]:
    memory = c.memory.bandwidth_bytes_per_s
    return {
        "name": c.name,
        "description": c.description,
        "provenance_note": c.provenance_note,
        "cores": c.core_count,
        "matrix_units": [unit.name for unit in c.unit_instances],
        "dram_bytes_per_s": memory.value,
        "dram_provenance": memory.provenance,
    }


def chip(c: Chip, path: Path | None, json: bool) -> None:
    """Every number of one chip; `path` is where a probe has just written it."""
    if json:
        where = {} if path is None else {"path": str(path)}
        print_json({**_chip_summary(c), **where, "chip": c.model_dump(mode="json")})
        return
    table = _table(f"{c.description}: {c.provenance_note}", "number", "value", "how it was got", text=3)
    from smesim.artefacts import chip_numbers

    for number in chip_numbers(c):
        table.add_row(number.quantity, number.value, number.provenance)
    _console.print(table)
    if path is not None:
        _console.print(f"written to {path}; '--chip {c.name}' means this machine from now on", highlight=False)


def plan(made: Plan, path: Path | None, json: bool) -> None:
    if json:
        print(made.to_json(), end="")
        return
    title = (
        f"{made.model.name}, {made.phase}, {made.weights_dtype} weights, {made.layers} layers on {made.chip}:"
        f" {made.planner}, {len(made.workers)} workers{', stand-in' if made.stand_in else ''}"
    )
    table = _table(title, "operator", "mode", "tiles are", "tile", "bound", "estimate", text=3, names=2)
    for o in made.operators:
        reason = (o.reason.bound, format_seconds(o.reason.predicted_s)) if o.reason else ("", "")
        mode = f"{o.mode}, stages" if o.pipeline is not None else o.mode
        table.add_row(o.site, mode, o.assignment.replace("_", " "), f"{o.tile.m} x {o.tile.n}", *reason)
    _console.print(table)
    if path is not None:
        _console.print(f"written to {path}", highlight=False)


def plan_differences(differences: Sequence[Difference], json: bool) -> None:
    if json:
        print_json({"differences": [asdict(d) for d in differences]})
        return
    if not differences:
        _console.print("the plans divide the work alike")
        return
    table = _table("", "operator", "what", "first", "second", text=4)
    for d in differences:
        table.add_row(d.site or "whole plan", d.field, d.first or "-", d.second or "-")
    _console.print(table)


def run(trace: Trace, of: Plan, json: bool) -> None:
    """One executor's trace: total, tokens per second, and a row a site."""
    import numpy as np

    from smesim.trace import site_times
    from smesim.workload import Phase

    total_s = float(np.median(trace.makespans_s()))
    phase = Phase.parse(of.phase)
    frame = site_times(trace)
    rows: list[dict[str, Any]] = []
    for site, group in frame.groupby("site", sort=False, observed=True):
        first = group.iloc[0]
        elapsed = group["elapsed_s"].to_numpy()
        low, middle, high = np.percentile(elapsed, [25, 50, 75])
        spread = float(high - low) if trace.meta.runs > 1 else None
        rows.append(
            {
                "name": str(site),
                "kind": str(first["op_kind"]),
                "time_s": float(middle),
                "spread_s": spread,
                "flop": int(first["flop"]),
                "bytes": int(first["bytes"]),
            }
        )
    meta = trace.meta
    if json:
        print_json(
            {
                "source": meta.source, "machine": meta.machine, "chip": meta.chip, "model": meta.model,
                "phase": meta.phase, "layers": meta.layers, "model_layers": of.model.layers,
                "planner": meta.planner, "workers": len(meta.workers),
                "runs": meta.runs, "total_s": total_s, "tokens_per_s": phase.rows / total_s, "operators": rows,
                "kernels": meta.kernels, "foreign_load": meta.foreign_load,
                "stand_in": meta.stand_in, "notes": list(meta.notes),
            }
        )  # fmt: skip
        return
    layers = f"{meta.layers} of {of.model.layers} layers"
    stand_in = ", stand-in" if meta.stand_in else ""
    title = f"{meta.model}, {meta.phase}, {layers}, {meta.source}{stand_in} on {meta.machine}"
    table = _table(title, "operator", "time", "spread", "FLOP/s", "bytes/s")
    for row in rows:
        uncertain = "-" if row["spread_s"] is None else format_seconds(row["spread_s"])
        seconds = max(row["time_s"], 1e-12)
        rates = (format_rate(row["flop"] / seconds, "FLOP"), format_rate(row["bytes"] / seconds, "B"))
        table.add_row(row["name"], format_seconds(row["time_s"]), uncertain, *rates)
    _console.print(table)
    notes = f" ({', '.join(meta.notes)})" if meta.notes else ""
    whole = meta.layers == of.model.layers
    rate = f"{phase.rows / total_s:.1f} tokens/s" + ("" if whole else f" with {layers}")
    _console.print(f"total {format_seconds(total_s)}, {rate}{notes}", highlight=False)
    if meta.foreign_load is not None:
        _console.print(f"other processes took {meta.foreign_load:.0%} of the machine", highlight=False)


def first_line(json: bool) -> None:
    """Say what this machine is and what can be shown on it; on standard output unless that is for JSON."""
    from smesim.artefacts import what_is_shown
    from smesim.exec.device import Device

    console = Console(stderr=True) if json else _console
    console.print(what_is_shown(Device.here()), highlight=False, markup=False)


def comparison(study: Study, json: bool, with_first_line: bool = True) -> None:
    if json:
        print(study.report.to_json())
        return
    from smesim.artefacts import what_is_shown
    from smesim.exec.device import Device
    from smesim.trace.table import print_report
    from smesim.workflow import is_this_machine

    made = study.plans[0]
    lines = [what_is_shown(Device.here())] if with_first_line else []
    if not is_this_machine(study.chip):
        lines.append(
            f"Predicted for {study.chip.name}, measured on this machine:"
            " what differs is the machines, and no error of the prediction."
        )
    lines.append(f"{made.layers} of {made.model.layers} layers of {made.model.name}, {study.weights}")
    print_report(study.report, "\n".join(lines), _console)


def written(folder: Path, json: bool) -> None:
    if not json:
        _console.print(f"chip, plans, traces, Perfetto and report.html are in {folder}", highlight=False)


def roofline(graph: OperatorGraph, c: Chip, json: bool) -> None:
    """Every site under the roofs of the cores, the matrix units, and both together; none where they lack its dtype."""
    from smesim.workflow import roofs

    found = roofs(graph, c)
    dtype = found.linear_dtype
    if json:
        print_json(
            {
                "chip": c.name, "model": graph.config.name, "phase": str(graph.phase),
                "weights": str(graph.dtypes.weights), "dtype": dtype,
                "roofs": {
                    name: {
                        "dtypes": sorted(roof.dtypes),
                        "peak_flop_per_s": roof.peak_flop_per_s(dtype) if dtype in roof.dtypes else None,
                        "bandwidth_bytes_per_s": roof.bandwidth_bytes_per_s(dtype) if dtype in roof.dtypes else None,
                        "ridge_flop_per_byte": roof.ridge_flop_per_byte(dtype) if dtype in roof.dtypes else None,
                        "total_s": found.total_s(name),
                        "operators": [asdict(p) for p in found.points[name] if p is not None],
                    }
                    for name, roof in found.roofs.items()
                },
            }
        )  # fmt: skip
        return
    table = _table(
        f"{graph.config.name}, {graph.phase}, {graph.dtypes.weights} weights, {graph.layers} layers on {c.name}:"
        " least times, bounds",
        "operator", "dtype", "FLOP/B", *found.roofs, text=2,
    )  # fmt: skip
    for i, demand in enumerate(found.demands):
        row = [found.points[name][i] for name in found.roofs]
        cells = [f"{format_seconds(p.time_s)} {p.bound}" if p else "-" for p in row]
        table.add_row(demand.name, demand.dtype, f"{demand.flop / max(demand.n_bytes, 1.0):.2f}", *cells)
    table.add_section()
    totals = (found.total_s(name) for name in found.roofs)
    table.add_row("total", "", "", *("-" if seconds is None else format_seconds(seconds) for seconds in totals))
    _console.print(table)
    for name, roof in found.roofs.items():
        if dtype not in roof.dtypes:
            _console.print(f"{name}: computes {', '.join(sorted(roof.dtypes))}, no {dtype}", highlight=False)
            continue
        _console.print(
            f"{name}: {dtype} {format_rate(roof.peak_flop_per_s(dtype), 'FLOP')},"
            f" {format_rate(roof.bandwidth_bytes_per_s(dtype), 'B')},"
            f" ridge at {roof.ridge_flop_per_byte(dtype):.1f} FLOP/B",
            highlight=False,
        )
    quantities = [c.memory.bandwidth_bytes_per_s]
    quantities += [cluster.core.flop_per_s[d] for cluster in c.clusters for d in cluster.core.flop_per_s]
    quantities += [rate for unit in c.unit_instances for rate in unit.unit.flop_per_s.values()]
    origins = sorted({q.provenance for q in quantities})
    _console.print(f"peaks and bandwidths of this chip file are {', '.join(origins)}", highlight=False)


def kernel_count(counted: KernelCount, json: bool) -> None:
    """What one call of a kernel executed, by class of instruction."""
    counts = counted.counts
    if json:
        about = {"kernel": counted.kernel, "shape": counted.shape, "svl_bits": counted.svl_bits or None}
        print_json({**about, "isa": counted.isa, "counts": counts})
        return
    svl = f", SVL {counted.svl_bits}" if counted.svl_bits else ""
    everything = sum(counts.values())
    table = _table(f"{counted.kernel} {counted.shape}, {counted.isa}{svl}", "instructions", "executed", "share")
    for kind, times in counts.items():
        table.add_row(kind.replace("_", " "), f"{times:,}", f"{times / everything:.1%}")
    table.add_row("all", f"{everything:,}", f"{1:.1%}")
    _console.print(table)
