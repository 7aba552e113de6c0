"""The one-to-one pairing of two sets that gains the most."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import ArrayLike, NDArray

__all__ = ["best_pairing", "largest_gain"]


def best_pairing(gains: ArrayLike) -> list[tuple[int, int]]:
    """Pairs (row, column), min(n, m) of them, whose gains have the largest sum; no row and no column stands in two pairs.

    The assignment problem (Kuhn 1955, doi:10.1002/nav.3800020109), solved by shortest augmenting paths with potentials (Jonker &
    Volgenant 1987, doi:10.1007/BF02278710): exact, n² m steps. Taking the best pair first and going on with the rest is not:
    of the gains [[0.6, 0.5], [0.5, 0]] it takes 0.6 and is left with 0, where 0.5 + 0.5 can be had.

    Args:
        gains: (n, m) finite numbers; n or m may be 0.
    """
    import numpy as np

    costs = -np.asarray(gains, dtype=np.float64)
    if not costs.size:
        return []
    if costs.shape[0] > costs.shape[1]:
        return sorted((row, column) for column, row in best_pairing(-costs.T))
    if len(costs) == 1:
        return [(0, int(costs[0].argmin()))]
    row_of = _assigned(costs)
    return sorted((int(row), column) for column, row in enumerate(row_of) if row >= 0)


def largest_gain(gains: ArrayLike) -> float:
    """The sum of the gains of :func:`best_pairing`; 0 without a pair."""
    import numpy as np

    table = np.asarray(gains, dtype=np.float64)
    return float(sum(table[pair] for pair in best_pairing(table)))


def _assigned(costs: NDArray[np.float64]) -> NDArray[np.int64]:
    """(n, m) costs with n <= m -> (m,) the row of each column, -1 = none."""
    import numpy as np

    num_rows, num_columns = costs.shape
    of_row, of_column = np.zeros(num_rows), np.zeros(num_columns)  # potentials: costs less both are >= 0 for rows that are placed
    row_of = np.full(num_columns, -1)
    for new in range(num_rows):
        distance = np.full(num_columns, np.inf)
        before = np.full(num_columns, -1)  # the column from which the shortest path comes, -1 = from the new row
        reached = np.zeros(num_columns, dtype=bool)
        row, column, length = new, -1, 0.0
        while True:
            steps = length + costs[row] - of_row[row] - of_column
            nearer = ~reached & (steps < distance)
            distance[nearer] = steps[nearer]
            before[nearer] = column
            column = int(np.where(reached, np.inf, distance).argmin())
            length = float(distance[column])
            if row_of[column] < 0:
                break
            reached[column] = True
            row = int(row_of[column])
        of_row[new] += length
        of_row[row_of[reached]] += length - distance[reached]
        of_column[reached] -= length - distance[reached]
        while column >= 0:
            came = int(before[column])
            row_of[column] = row_of[came] if came >= 0 else new
            column = came
    return row_of
