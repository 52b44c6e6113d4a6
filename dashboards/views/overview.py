"""Overview: what this machine is, the newest comparison, and how far to trust predictions."""

from __future__ import annotations

import pandas as pd
import streamlit as st

from dashboards import opening, palette, published, work
from dashboards.question import Question, files_folder
from dashboards.views import parts, validation
from smesim.artefacts import what_is_shown
from smesim.exec.device import Device
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
            comparison = work.comparison_in(folder, predicted)
            total, meta = comparison.total, comparison.measured.meta
            st.write(
                f"{newest}, {meta.model}, {phase}: {format_seconds(total.predicted_s)} ({palette.mark('simulated')}),"
                f" {format_seconds(total.measured_s)} ({palette.trace_mark(meta.source, meta.stand_in)}),"
                f" error {total.error:+.1%}."
            )
    else:
        st.write(f"None in {folder} yet; 'smesim demo' makes one.")
    st.subheader("How far to trust it")
    if (found := validation.newest()) is not None:
        st.write(" ".join(published.sentences(found)))
    st.write("Marks of numbers: " + ", ".join(palette.MARKS.values()) + ".")
