"""Free parameters of chips and engines, laid through calibration rows.

A number is free if its file says `fitted` and brackets it (`low`, `high`). The fit is a least-squares one on log
ratios of predicted to published, robust to single outliers (soft L1), in the logarithm of each parameter, with a
prior: a parameter that moves by a whole bracket costs as much as an error of `PRIOR_WEIGHT`. So a number that no
record depends on stays where it was believed to be, and few rows cannot push one to an extreme.

Cross-validation: the rows of each block are dealt into folds, and for each fold the parameters are fitted again to the
other rows alone (`refitting`), whose numbers then predict the fold's rows.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from smesim.errors import SmesimError
from smesim.validate.adapters import answer
from smesim.validate.library import Library, Values
from smesim.validate.machines import NotModelled
from smesim.validate.records import PublishedRecord
from smesim.validate.refitting import Problem, groups, refit

FOLDS = 5
PRIOR_WEIGHT = 0.3
ROBUST_FROM = 0.2  # log ratios beyond this weigh less and less
STEP = 0.02  # of the logarithm, for derivatives
INSENSITIVE = 1e-9  # of a derivative: the row does not depend on the parameter
LEAST = 1e-4  # of its upper end: what a bracket that begins at zero begins at

Floats = npt.NDArray[np.float64]
Progress = Callable[[str], None]


@dataclass(frozen=True)
class FreeParameter:
    """A number that a fit may change: its document and path, its value, and its bracket."""

    key: str
    value: float
    low: float
    high: float
    prior: float

    @property
    def document(self) -> str:
        return self.key.partition("/")[0]

    @property
    def bounds(self) -> tuple[float, float]:
        return math.log(max(self.low, self.high * LEAST)), math.log(self.high)

    @property
    def start(self) -> float:
        low, high = self.bounds
        return min(max(math.log(max(self.value, self.high * LEAST)), low + 1e-6), high - 1e-6)


@dataclass(frozen=True)
class Fit:
    """Fitted values, and what each record was predicted as: with them, and with those of the other folds."""

    parameters: tuple[FreeParameter, ...]
    values: dict[str, float]
    fitted: dict[str, float]
    cross_validated: dict[str, float]


def free_parameters(documents: Mapping[str, dict[str, Any]]) -> tuple[FreeParameter, ...]:
    """All free numbers of some files, in the order in which they stand there."""
    found: list[FreeParameter] = []

    def walk(node: Any, key: str) -> None:
        if isinstance(node, dict):
            if node.get("provenance") == "fitted" and "value" in node and "low" in node and "high" in node:
                value, low, high = (float(node[name]) for name in ("value", "low", "high"))
                found.append(FreeParameter(key, value, low, high, float(node.get("prior") or value)))
                return
            for name, inner in node.items():
                walk(inner, f"{key}{name}" if key.endswith("/") else f"{key}.{name}")
        elif isinstance(node, list):
            for index, inner in enumerate(node):
                walk(inner, f"{key}.{index}")

    for name, document in documents.items():
        walk(document, f"{name}/")
    return tuple(found)


class _Rows:
    """Predictions of some records as a function of parameters; a record is asked again only if it depends on one."""

    def __init__(self, records: Sequence[PublishedRecord], parameters: Sequence[FreeParameter]) -> None:
        self.records, self.parameters = records, parameters
        self.published = np.array([math.log(float(r.value or 0.0)) for r in records])
        self.depends = np.array([[p.document in _documents_of(r) for p in parameters] for r in records], np.bool_)

    def values(self, x: Floats) -> Values:
        return {p.key: math.exp(v) for p, v in zip(self.parameters, x, strict=True)}

    def errors(self, x: Floats, rows: Sequence[int] | None = None) -> Floats:
        library = Library(self.values(x))
        chosen = range(len(self.records)) if rows is None else rows
        answers = [math.log(answer(self.records[i].question(), library)) for i in chosen]
        errors: Floats = np.array(answers) - self.published[list(chosen)]
        return errors

    def jacobian(self, x: Floats) -> Floats:
        base = self.errors(x)
        result = np.zeros((len(base), len(x)))
        for column in range(len(x)):
            moved = x.copy()
            high = self.parameters[column].bounds[1]
            step = STEP if x[column] + STEP < high else -STEP
            moved[column] += step
            rows = np.flatnonzero(self.depends[:, column]).tolist()
            if rows:
                result[rows, column] = (self.errors(moved, rows) - base[rows]) / step
        self.depends &= np.abs(result) > INSENSITIVE
        return result


def _documents_of(record: PublishedRecord) -> frozenset[str]:
    """The files that a record is answered from."""
    if record.id not in _documents:
        library = Library()
        answer(record.question(), library)
        _documents[record.id] = frozenset(library.documents())
    return _documents[record.id]


_documents: dict[str, frozenset[str]] = {}


def fit(
    records: Sequence[PublishedRecord], only: Sequence[str] = (), progress: Progress = lambda _: None,
    iterations: int = 12,
) -> Fit:  # fmt: skip
    """Fit the free parameters that calibration rows among the records depend on.

    `only` restricts them to some documents ("chip:apple-m4", "engine:bnns"). SmesimError where scipy is not installed,
    or no row depends on a free parameter.
    """
    try:
        from scipy.optimize import least_squares
    except ImportError:
        raise SmesimError("a fit needs scipy; install smesim[fit]") from None
    library = Library()
    rows = [r for r in records if r.split == "calibration" and r.value and _is_modelled(r, library)]
    documents = {name: doc for name, doc in library.documents().items() if not only or name in only}
    parameters = free_parameters(documents)
    used: list[int] = []
    if rows and parameters:
        progress(f"{len(rows)} rows, {len(parameters)} free parameters")
        model = _Rows(rows, parameters)
        start = np.array([p.start for p in parameters])
        model.jacobian(start)
        used = np.flatnonzero(model.depends.any(axis=0)).tolist()
    if not used:
        raise SmesimError(
            "nothing to fit; accepted: blocks whose chips or engines have numbers that are 'fitted' with low and high"
        )
    parameters = tuple(parameters[i] for i in used)
    model = _Rows(rows, parameters)
    start = start[used]
    priors = np.array([math.log(max(p.prior, p.high * LEAST)) for p in parameters])
    widths = np.array([p.bounds[1] - p.bounds[0] for p in parameters])
    weights = PRIOR_WEIGHT / widths

    def residuals(x: Floats) -> Floats:
        errors = model.errors(x)
        progress(f"median error {float(np.median(np.abs(np.expm1(errors)))):.1%}")
        return np.concatenate([errors, weights * (x - priors)])

    found = least_squares(
        residuals, start, jac=lambda x: np.vstack([model.jacobian(x), np.diag(weights)]), loss="soft_l1",
        f_scale=ROBUST_FROM, bounds=tuple(np.array([p.bounds for p in parameters]).T), max_nfev=iterations, x_scale=1.0,
    )  # fmt: skip
    x: Floats = found.x
    errors = model.errors(x)
    crossed = _cross_validate(model, x, errors, weights, priors, progress)
    return Fit(
        parameters,
        dict(model.values(x)),
        {row.id: math.exp(e + p) for row, e, p in zip(rows, errors, model.published, strict=True)},
        {row.id: math.exp(e + p) for row, e, p in zip(rows, crossed, model.published, strict=True)},
    )


def _is_modelled(record: PublishedRecord, library: Library) -> bool:
    try:
        return answer(record.question(), library) > 0.0
    except NotModelled:
        return False


def folds_of(records: Sequence[PublishedRecord]) -> npt.NDArray[np.int64]:
    """The fold of each row: the rows of a block are dealt out in their order."""
    seen: dict[str, int] = {}
    folds = []
    for record in records:
        position = seen.get(record.block, 0)
        seen[record.block] = position + 1
        folds.append(position % FOLDS)
    return np.array(folds, np.int64)


def _cross_validate(
    model: _Rows, x: Floats, errors: Floats, weights: Floats, priors: Floats, progress: Progress
) -> Floats:  # fmt: skip
    """Errors of each fold's rows with the parameters that a fit to the other rows finds."""
    jacobian = model.jacobian(x)
    folds = folds_of(model.records)
    low, high = np.array([p.bounds for p in model.parameters]).T
    crossed = errors.copy()
    for rows, columns in groups(model.depends):
        for fold in range(FOLDS):
            inside = [row for row in rows if folds[row] == fold]
            kept = [row for row in rows if folds[row] != fold]
            if not inside:
                continue
            progress(f"fold {fold + 1} of {FOLDS}: {len(inside)} rows by {len(kept)} others")

            def others(own: Floats, kept: list[int] = kept, columns: list[int] = columns) -> Floats:
                moved = x.copy()
                moved[columns] = own
                return model.errors(moved, kept)

            problem = Problem(
                others, priors[columns], weights[columns], low[columns], high[columns], ROBUST_FROM
            )
            moved = x.copy()
            moved[columns] = refit(problem, x[columns], errors[kept], jacobian[np.ix_(kept, columns)])
            crossed[inside] = model.errors(moved, inside)
    return crossed
