"""Least squares for S = floor + (1 - floor) exp(-d / lambda), of all resamples at once.

The curve goes through S(0) = 1, the stiffness of an example with itself (Section 4.4). For a given
lambda the best floor has a closed form, so that only lambda is searched.
"""

import numpy as np

from stiffness.measures.pairs import Bools, Floats

# A fall over the whole range of distances below this is rounding of float32 cosines, not a slope.
FLAT = 1e-6
# Decay lengths that are tried, in units of the farthest distance: beyond the last one the curve is
# a line as far as the data reach, and only a bound is known.
_SHORTEST, _LONGEST, _TRIED = 1 / 300, 30.0, 97


def _tried_logs(farthest: float) -> Floats:
    """Logarithms of the decay lengths that are tried, [L]."""
    return np.linspace(np.log(_SHORTEST * farthest), np.log(_LONGEST * farthest), _TRIED)


def decay_grid(x: Floats, counts: Floats, farthest: float) -> tuple[Floats, Floats, Floats]:
    """e = exp(-d / lambda) of the runs for every lambda that is tried, [L, K], and sums of n e and
    of n e e over the runs, [L, R]; the arguments are those of ``decay_fit``."""
    e = np.exp(-x / np.exp(_tried_logs(farthest))[:, None])
    return e, e @ counts, (e * e) @ counts


def decay_fit(
    x: Floats,
    counts: Floats,
    sums: Floats,
    farthest: float,
    grid: tuple[Floats, Floats, Floats],
) -> tuple[Floats, Floats, Bools]:
    """Fit decays to runs of pairs.

    Returns lambda [R], infinite where it is not resolved; the floor [R]; and whether the curve
    falls within the data, [R].

    For a given lambda the floor is a linear least-squares problem, bounded by -1 and 1. Lambda is
    found on a logarithmic grid and moved to the vertex of a parabola through the best three.

    Args:
        x: [K], mean distances of the runs.
        counts: [K, R], numbers of pairs.
        sums: [K, R], sums of their stiffness.
        farthest: the largest distance.
        grid: from ``decay_grid``.
    """
    logs = _tried_logs(farthest)

    def floor_and_error(n: Floats, y: Floats, ye: Floats, ne: Floats, nee: Floats) -> Floats:
        """Floors, and squared errors up to a constant, from the sums of n, y, y e, n e, n e e."""
        above, below = y - ye - ne + nee, n - 2 * ne + nee
        with np.errstate(divide="ignore", invalid="ignore"):
            floor = np.clip(above / below, -1, 1)
        return np.stack([floor, nee - 2 * ye - 2 * floor * above + floor**2 * below])

    n, y = counts.sum(0), sums.sum(0)
    tried, ne, nee = grid
    errors = floor_and_error(n, y, tried @ sums, ne, nee)[1]
    best = np.where(np.isnan(errors), np.inf, errors).argmin(0)
    middle = np.clip(best, 1, _TRIED - 2)
    columns = np.arange(errors.shape[1])
    before, at, after = (errors[middle + shift, columns] for shift in (-1, 0, 1))
    with np.errstate(divide="ignore", invalid="ignore"):
        shift = np.clip((before - after) / (2 * (before - 2 * at + after)), -1, 1)
    step = logs[1] - logs[0]
    log = logs[middle] + step * np.where(best == middle, np.nan_to_num(shift), best - middle)
    lengths = np.exp(log)
    e = np.exp(-x[:, None] / lengths)  # [K, R]
    ye = np.einsum("kr,kr->r", e, sums)
    e_counts = e * counts
    floors = floor_and_error(n, y, ye, e_counts.sum(0), np.einsum("kr,kr->r", e, e_counts))[0]
    falls = (1 - floors) * -np.expm1(-farthest / lengths) > FLAT
    lengths[(best == _TRIED - 1) | ~falls] = np.inf
    lengths[n == 0] = floors[n == 0] = np.nan
    return lengths, floors, falls
