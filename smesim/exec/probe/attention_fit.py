"""What attention costs, from the samples of the little models.

In fused attention products and softmax grow together, and a fit could not tell them apart. So each stage is fitted by
itself, from runs with attention in stages; fused attention does the same work, and what is fitted of it is how much
longer or shorter all that takes there.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from smesim.exec.probe.fit import Fit
from smesim.exec.probe.little_models import LittleRun
from smesim.exec.probe.samples import Sample, attention_task, pairs_of, samples_of, stage_features
from smesim.exec.probe.task_fits import COMPUTE_BOUND_SHARE, FittedKernel, fit_samples, needed
from smesim.exec.probe.yardstick import Reference
from smesim.hwmodel.cost import attention_work
from smesim.plan.program import TaskKind
from smesim.plan.reuse import F32_BYTES

_PRODUCT = (("kstep_factor", "1"), ("s_per_tile", "s"), ("s_per_query_element", "s/element"), ("s_per_task", "s"))
_SOFTMAX = (("s_per_score", "s"), ("s_per_row_block", "s"), ("s_per_cut_row", "s"))
STAGES = {
    TaskKind.ATTENTION_QK: ("attention_qk_f32", _PRODUCT),
    TaskKind.ATTENTION_SOFTMAX: ("attention_softmax_f32", _SOFTMAX),
    TaskKind.ATTENTION_PV: ("attention_pv_f32", _PRODUCT),
}
"""The kernel of each stage, and its coefficients in the order of `stage_features`."""


class Warm(NamedTuple):
    """A k-step of the products of models by the height of its micro-tile, in seconds, and the greatest height."""

    kstep_s: Sequence[float]
    mr: int


def fit_stages(
    runs: Sequence[LittleRun], warm: Warm, threads: int, factor: float, steady: Reference
) -> list[FittedKernel]:  # fmt: skip
    """Each stage by itself; `factor` is what a core's rate is multiplied by when all work.

    What a stage takes longer than that where others wrote its scores is the cost of a shared byte.
    """
    kernels = []
    for kind, (name, wanted) in STAGES.items():
        samples = needed(samples_of(runs, kind, 1, steady.product.median), f"{kind.name} tasks")
        features = np.array([stage_features(s, *warm)[: len(wanted)] for s in samples])
        fit = fit_samples(features, samples, positive=[0])
        pairs = zip(wanted, fit.coefficients, strict=True)
        parameters = {parameter: (value, unit) for (parameter, unit), value in pairs}
        if kind is not TaskKind.ATTENTION_QK:  # which reads what its own worker wrote
            parameters["s_per_shared_byte"] = (_shared_score_s(runs, kind, fit, warm, threads, factor), "s/B")
        kernels.append(FittedKernel(name, parameters, fit.residual, fit.samples))
    return kernels


def _shared_score_s(
    runs: Sequence[LittleRun], kind: TaskKind, fit: Fit, warm: Warm, threads: int, factor: float
) -> float:  # fmt: skip
    if threads == 1:
        return 0.0
    longer = []
    for sample in samples_of(runs, kind, threads):
        features = stage_features(sample, *warm)[: len(fit.coefficients)]
        own_s = float(np.dot(features, fit.coefficients)) / factor
        longer.append((sample.seconds - own_s) / (F32_BYTES * pairs_of(sample) * (threads - 1) / threads))
    return max(0.0, float(np.median(longer)))


def fit_attention(
    runs: Sequence[LittleRun], warm: Warm, stages: Sequence[FittedKernel], bytes_per_s: Mapping[int, float],
    steady: Reference,
) -> FittedKernel:  # fmt: skip
    """Fused attention where memory does not matter, as so many times its stages; then how much of the arithmetic waits
    where memory does.

    `bytes_per_s`: what one thread draws from DRAM, by how many are at it.
    """
    stage = {kernel.name: {name: value for name, (value, _) in kernel.parameters.items()} for kernel in stages}
    qk, softmax, pv = (stage[name] for name, _ in STAGES.values())
    shares = {name: (qk[name] + pv[name]) / 2 for name in ("kstep_factor", "s_per_tile")}
    per_element = qk["s_per_query_element"] + pv["s_per_query_element"]

    def as_stages_s(sample: Sample) -> float:
        shape, units, _ = attention_task(sample)
        work = attention_work(shape, warm.mr, 16)
        steps_s = sum(steps * warm.kstep_s[min(height, warm.mr)] for height, steps in work.ksteps_by_height)
        seconds = shares["kstep_factor"] * steps_s + shares["s_per_tile"] * work.tiles
        seconds += softmax["s_per_score"] * work.pairs + softmax["s_per_row_block"] * work.row_blocks
        seconds += softmax["s_per_cut_row"] * work.cut_rows + per_element * work.rows * shape.head_dim
        return units * seconds

    rows = [(as_stages_s(s), s) for s in samples_of(runs, TaskKind.ATTENTION, 1, steady.product.median)]
    near = [(s_s, s) for s_s, s in rows if attention_task(s)[2] / bytes_per_s[1] < COMPUTE_BOUND_SHARE / 2 * s.seconds]
    needed([s for _, s in near], "compute-bound attention tasks")
    fit = fit_samples(np.array([[seconds] for seconds, _ in near]), [s for _, s in near], positive=[0])
    (stretch,) = fit.coefficients
    waiting = [0.0]
    for threads, rate in bytes_per_s.items():
        for sample in samples_of(runs, TaskKind.ATTENTION, threads):
            transfer_s, compute_s = attention_task(sample)[2] / rate, stretch * as_stages_s(sample)
            if transfer_s > compute_s:  # then the task lasts as long as its transfer and what does not overlap with it
                waiting.append((sample.seconds - transfer_s) / compute_s)
    parameters = {
        "kstep_factor": (stretch * shares["kstep_factor"], "1"),
        "s_per_tile": (stretch * shares["s_per_tile"], "s"),
        **{name: (stretch * softmax[name], unit) for name, unit in _SOFTMAX},
        "s_per_query_element": (stretch * per_element, "s/element"),
        "serial_share": (float(np.clip(np.median(waiting), 0.0, 1.0)), "1"),
    }
    return FittedKernel("attention_f32", parameters, fit.residual, fit.samples)
