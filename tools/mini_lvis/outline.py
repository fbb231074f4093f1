"""The polygons around a mask, along the edges of its pixels: their bounding box is the mask's."""

import numpy as np


def _directed_edges(mask: np.ndarray) -> dict[tuple[int, int], list[tuple[int, int]]]:
    """Pixel edges between in and out, with the inside on their right: start (x, y) -> ends."""
    padded = np.pad(mask, 1)
    here = padded[1:-1, 1:-1]
    edges: dict[tuple[int, int], list[tuple[int, int]]] = {}
    sides = (
        (padded[:-2, 1:-1], (0, 0), (1, 0)),
        (padded[1:-1, 2:], (1, 0), (1, 1)),
        (padded[2:, 1:-1], (1, 1), (0, 1)),
        (padded[1:-1, :-2], (0, 1), (0, 0)),
    )
    for neighbour, (ax, ay), (bx, by) in sides:
        rows, columns = np.nonzero(here & ~neighbour)
        for x, y in zip(columns.tolist(), rows.tolist(), strict=True):
            edges.setdefault((x + ax, y + ay), []).append((x + bx, y + by))
    return edges


def _next(
    edges: dict[tuple[int, int], list[tuple[int, int]]], before: tuple[int, int], at: tuple[int, int]
) -> tuple[int, int]:
    """Takes the edge that leaves `at`; of two, the right turn, so that pixels that touch only at a corner
    stay in separate polygons."""
    ends = edges[at]
    if len(ends) == 1:
        return edges.pop(at)[0]
    dx, dy = at[0] - before[0], at[1] - before[1]
    right = (at[0] - dy, at[1] + dx)
    ends.remove(right)
    return right


def _area(points: list[tuple[int, int]]) -> float:
    following = points[1:] + points[:1]
    return 0.5 * sum(a[0] * b[1] - a[1] * b[0] for a, b in zip(points, following, strict=True))


def outlines(mask: np.ndarray) -> list[list[float]]:
    """(h, w) bool -> [[x0, y0, x1, y1, ...], ...] in pixels: one closed polygon for each connected part.

    Holes are dropped: LVIS's polygons cannot express them.
    """
    edges = _directed_edges(mask)
    polygons = []
    while edges:
        start = next(iter(edges))
        loop = [start, edges[start].pop(0)]
        if not edges[start]:
            del edges[start]
        while loop[-1] != start:
            loop.append(_next(edges, loop[-2], loop[-1]))
        points = loop[:-1]
        # Corners only: points between two edges of one direction are redundant.
        corners = [
            b
            for a, b, c in zip(points[-1:] + points[:-1], points, points[1:] + points[:1], strict=True)
            if (b[0] - a[0], b[1] - a[1]) != (c[0] - b[0], c[1] - b[1])
        ]
        if _area(corners) > 0:
            polygons.append([float(v) for corner in corners for v in corner])
    return polygons
