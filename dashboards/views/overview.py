"""Overview: what this machine is, the newest comparison, and how far to trust predictions."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import streamlit as st

from dashboards import opening, palette, published, work
from dashboards.question import Question, files_folder
from dashboards.views import parts, validation
from smesim.artefacts import what_is_shown
from smesim.exec.device import Device
from smesim.plan.schema import Plan
from smesim.units import format_bytes, format_seconds


def page(question: Question) -> None:
    device = Device.here()
    st.write(what_is_shown(device))
    kernels = ", ".join(table.isa for table in device.kernels if table.supported)
    facts = {
        "processor": f"{device.processor} ({device.architecture})",
        "usable cores": str(len(device.cores)),
        "memory": format_bytes(device.memory_bytes),
        "matrix extension": ", ".join(device.matrix_extensions) or "none",
        "kernels": f"{kernels}; chosen: {device.isa}",
        "times": palette.mark("emulated" if device.emulated else "measured"),
    }
    parts.table(pd.DataFrame(facts.items(), columns=["this machine", "is"]), "machine")
    folder = files_folder()
    st.subheader("The newest comparison")
    studies = opening.studies_by_folder(folder)
    if studies:
        newest, of_phase = next(iter(studies.items()))
        for phase, predicted in of_phase.items():
            st.write(f"{newest}, {_compared(folder, predicted, phase)}.")
    else:
        st.write(f"None in {folder} yet; 'smesim demo' makes one.")
    st.subheader("How far to trust it")
    if (found := validation.newest()) is not None:
        st.write(" ".join(published.sentences(found)))
    st.write("Marks of numbers: " + ", ".join(palette.MARKS.values()) + ".")


def _compared(folder: Path, predicted: str, phase: str) -> str:
    """Model, phase, both times and the error of one comparison. Only what is measured on hardware is ever compared."""
    model, stand_in, predicted_s, measured_s = _stated(folder, predicted) or _worked_out(folder, predicted)
    return (
        f"{model}, {phase}: {format_seconds(predicted_s)} ({palette.mark('simulated')}),"
        f" {format_seconds(measured_s)} ({palette.trace_mark('measured', stand_in)}),"
        f" error {predicted_s / measured_s - 1:+.1%}"
    )


def _stated(folder: Path, predicted: str) -> tuple[str, bool, float, float] | None:
    """Model, whether a stand-in was used, and seconds, by the short files of a study; None where it lacks them."""
    path = opening.plan_beside(Path(predicted))
    plan = work.file_in(folder, str(path)) if (folder / path).is_file() else None
    if not isinstance(plan, Plan):
        return None
    total = opening.total_beside(opening.inside(folder, predicted), plan.phase)
    return None if total is None else (plan.model.name, plan.stand_in, *total)


def _worked_out(folder: Path, predicted: str) -> tuple[str, bool, float, float]:
    """The same, from the traces."""
    comparison = work.comparison_in(folder, predicted)
    meta, total = comparison.measured.meta, comparison.total
    return meta.model, meta.stand_in, total.predicted_s, total.measured_s
