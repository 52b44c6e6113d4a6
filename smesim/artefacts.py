"""The files that a study leaves: chip, plans, traces, Perfetto and report, each written whole or not at all."""

from __future__ import annotations

from pathlib import Path

from smesim.exec.device import Device
from smesim.files import write_atomically
from smesim.hwmodel import library
from smesim.hwmodel.chip import Chip
from smesim.hwmodel.quantity import Quantity
from smesim.trace import write_trace
from smesim.trace.figures import plotly
from smesim.trace.perfetto import write_perfetto_sequence
from smesim.trace.report import HardwareNumber, LabEntry, write_report
from smesim.workflow import Study, is_this_machine


def what_is_shown(device: Device) -> str:
    """The first line of every result: what this machine has, and what a comparison on it therefore shows."""
    if device.matrix_extensions:
        return f"This machine: {device.summary()}. Its matrix unit is not used by this plan: what follows is CPU only."
    return (
        f"This machine has no SME ({device.summary()}): what follows predicts and measures the same plan on its CPU"
        " cores. What a matrix unit would add on a published chip is predicted only: 'smesim ablate --chip apple-m4'."
    )


def check_report_can_be_made() -> None:
    """TraceError before anything is measured if the package that draws the report is not installed."""
    plotly("offline")


def write_study(study: Study, folder: Path) -> None:
    """Write chip.toml, perfetto.json, comparison.json and report.html; for each phase its plan and both traces.

    Where the machine had drifted since the probe, chip-<phase>.toml is the chip that the phase was predicted on.
    tasks-<phase>.csv has both sides of every task in one row, operators-<phase>.csv those of every operator.
    """
    library.save(study.chip, folder / "chip.toml")
    for plan, chip, comparison in zip(study.plans, study.chips, study.comparisons, strict=True):
        phase = plan.phase.translate(str.maketrans(":,=", "---"))
        if chip != study.chip:
            library.save(chip, folder / f"chip-{phase}.toml")
        plan.save(folder / f"plan-{phase}.json")
        write_trace(comparison.predicted, folder / f"predicted-{phase}.json")
        write_trace(comparison.measured, folder / f"measured-{phase}.json")
        write_atomically(folder / f"tasks-{phase}.csv", comparison.tasks.to_csv(index=False))
        write_atomically(folder / f"operators-{phase}.csv", comparison.operators.to_csv(index=False))
    write_perfetto_sequence(folder / "perfetto.json", [(c.predicted, c.measured) for c in study.comparisons])
    write_atomically(folder / "comparison.json", study.report.to_json() + "\n")
    write_report(study.report, _entry(study), folder / "report.html")


def _entry(study: Study) -> LabEntry:
    plan = study.plans[0]
    phases = " and ".join(p.phase for p in study.plans)
    asked = (
        f"How long do {phases} of {plan.model.name} take on this machine, with {len(plan.workers)} threads and"
        f" plan '{plan.planner}'? {plan.layers} of {plan.model.layers} layers, {study.weights}."
    )
    trust = [f"Chip file: {study.chip.provenance_note}."]
    if is_this_machine(study.chip):
        trust.append(
            "Kernel coefficients were fitted to two little models; no catalogue model has products of their shapes."
        )
    else:
        trust.append(
            f"Predicted for {study.chip.name}, measured on this machine: what differs is the machines, and no error of"
            " the prediction."
        )
    return LabEntry(
        title=f"{plan.model.name}: predicted and measured",
        first_line=what_is_shown(Device.here()),
        asked=asked,
        trust=tuple(trust),
        numbers=tuple(chip_numbers(study.chip)),
    )


def chip_numbers(chip: Chip) -> list[HardwareNumber]:
    """The numbers of a chip that predictions rest on, each with how it was got."""
    named: list[tuple[str, Quantity]] = [
        ("DRAM bandwidth", chip.memory.bandwidth_bytes_per_s),
        ("dispatch", chip.sync.dispatch_s),
        ("barrier", chip.sync.barrier_s),
    ]
    for cluster in chip.clusters:
        core = cluster.core
        named += [(f"{cluster.name} core peak {dtype}", rate) for dtype, rate in core.flop_per_s.items()]
        named += [(f"{cluster.name} core load from {level}", rate) for level, rate in core.load_bytes_per_s.items()]
        named += [(f"all cores' factor ({p.threads} threads)", p.factor) for p in cluster.multi_core_factors]
        for unit in cluster.matrix_units:
            named += [(f"{cluster.name} {unit.kind} peak {dtype}", rate) for dtype, rate in unit.flop_per_s.items()]
        for kernel in core.kernels:
            named += [(f"{kernel.name} ({kernel.isa}) {name}", value) for name, value in kernel.parameters.items()]
    return [
        HardwareNumber(
            name, f"{q.value:.4g} {q.unit}", q.provenance, q.source if q.reason is None else f"{q.source}: {q.reason}"
        )
        for name, q in named
    ]
