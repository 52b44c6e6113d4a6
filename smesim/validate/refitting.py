"""A fit made again to part of its rows, begun where the fit to all of them ended.

Predictions are simulations, so they are dear, and derivatives by differences are dearer. A refit begins with the
derivatives of the whole fit and takes Gauss-Newton steps; after each, what the predictions did corrects the derivatives
along the step (Broyden 1965), so an iteration costs one prediction of each row. A step that does not lower the loss is
taken half as far. Rows that share no parameter, not even through others, do not move each other: each such group is
fitted by itself.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

STEPS = 12
LARGEST_STEP = 0.5  # of a logarithm: as far as derivatives are believed at once
SETTLED = 2e-3  # of a logarithm: a step that moves no number by more ends the fit
LEAST_SHARE = 0.1  # of a step; where not even so little of it helps, the fit ends

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Problem:
    """Errors of some rows as a function of parameters, what the parameters were believed to be, and their bounds."""

    errors: Callable[[Floats], Floats]
    priors: Floats
    weights: Floats
    low: Floats
    high: Floats
    robust_from: float

    def residuals(self, x: Floats, errors: Floats) -> Floats:
        return np.concatenate([errors, self.weights * (x - self.priors)])

    def loss(self, residuals: Floats) -> float:
        """Soft L1: quadratic below `robust_from`, linear beyond."""
        return float(np.sum(np.sqrt(1.0 + (residuals / self.robust_from) ** 2) - 1.0))


def refit(problem: Problem, x: Floats, errors: Floats, jacobian: Floats) -> Floats:
    """The parameters at which the loss of the problem's rows is least, from a point with its errors and derivatives."""
    jacobian = jacobian.copy()
    known = jacobian != 0.0  # a row that did not depend on a parameter is not made to by a correction
    residuals = problem.residuals(x, errors)
    loss, share = problem.loss(residuals), 1.0
    for _ in range(STEPS):
        whole = np.vstack([jacobian, np.diag(problem.weights)])
        pull = 1.0 / np.sqrt(1.0 + (residuals / problem.robust_from) ** 2)
        downhill = np.linalg.solve((whole.T * pull) @ whole, (whole.T * pull) @ residuals)
        moved = np.clip(x - share * np.clip(downhill, -LARGEST_STEP, LARGEST_STEP), problem.low, problem.high)
        step = moved - x
        if float(np.max(np.abs(step), initial=0.0)) < SETTLED:
            break
        found = problem.errors(moved)
        surprise = found - errors - jacobian @ step
        jacobian += np.where(known, np.outer(surprise, step) / float(step @ step), 0.0)
        then = problem.residuals(moved, found)
        if problem.loss(then) < loss:
            x, errors, residuals, loss = moved, found, then, problem.loss(then)
            share = min(1.0, 2.0 * share)
        elif (share := share / 2.0) < LEAST_SHARE:
            break
    return x


def groups(depends: npt.NDArray[np.bool_]) -> Iterator[tuple[list[int], list[int]]]:
    """Rows and columns of a table that hang together: no row of a group depends on a column of another."""
    left = set(range(depends.shape[1]))
    while left:
        columns = {min(left)}
        while True:
            rows = np.flatnonzero(depends[:, sorted(columns)].any(axis=1))
            reached = columns | set(np.flatnonzero(depends[rows].any(axis=0)).tolist())
            if reached == columns:
                break
            columns = reached
        left -= columns
        yield rows.tolist(), sorted(columns)
