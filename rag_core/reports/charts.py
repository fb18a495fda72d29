"""Small charts as SVG that follow the page's colours, light and dark, without a plotting library."""

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from rag_core.reports.formats import number

_WIDTH: Final = 500.0
_HEIGHT: Final = 180.0
_LEFT: Final = 46.0
_BOTTOM: Final = 26.0
_TOP: Final = 18.0
_BINS: Final = 32


@dataclass(frozen=True)
class Bar:
    """A bar of a list: its label, its count, its share of the largest (0 to 1)."""

    label: str
    count: int
    of_largest: float


def bars(counts: dict[str, int], most: int = 12) -> list[Bar]:
    """Order counts for a list of bars, the largest first; what is beyond `most` is summed up in the last bar."""
    ordered = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    if len(ordered) > most:
        rest = ordered[most - 1 :]
        ordered = [*ordered[: most - 1], (f"{len(rest)} others", sum(count for _, count in rest))]
    return ranged(dict(ordered))


def ranged(counts: dict[str, int]) -> list[Bar]:
    """Make a list of bars in the order that is given."""
    largest = max(counts.values(), default=0)
    return [Bar(label, count, count / largest if largest else 0.0) for label, count in counts.items()]


def histogram(values: NDArray[np.int64], *, unit: str, limit: int | None = None) -> str:
    """Draw how often values occur, with the median; SVG for inside a page.

    Args:
        values: (n,) not negative; without any there is no drawing.
        unit: What is counted, for the axis.
        limit: A value to be marked, such as the largest that is allowed.
    """
    if not values.size:
        return ""
    high = int(max(values.max(), limit or 0)) + 1
    width = max(1, -(-high // _BINS))
    edges = np.arange(0, width * (-(-high // width)) + 1, width)
    counts, _ = np.histogram(values, edges)
    median = float(np.median(values))
    parts = [
        f'<svg class="chart" viewBox="0 0 {_WIDTH:g} {_HEIGHT:g}" role="img" '
        f'aria-label="Histogram of {len(values):,} values of {unit}, median {median:,.0f}">'
    ]
    parts += _grid(int(counts.max()))
    scale, base = (_WIDTH - _LEFT) / float(edges[-1]), _HEIGHT - _BOTTOM
    for start, count in zip(edges, counts, strict=False):
        height = (base - _TOP) * count / counts.max()
        shown = f"{start:,}" if width == 1 else f"{start:,} to {start + width - 1:,}"
        parts.append(
            f'<rect class="bar" x="{_LEFT + start * scale + 0.75:.1f}" y="{base - height:.1f}" '
            f'width="{width * scale - 1.5:.1f}" height="{height:.1f}"><title>{shown} {unit}: {count:,}</title></rect>'
        )
    for value in _ticks(int(edges[-1])):
        at = _LEFT + value * scale
        anchor = "start" if not value else "middle" if at < _WIDTH - 20 else "end"
        parts.append(f'<text x="{at:.1f}" y="{_HEIGHT - 8:g}" text-anchor="{anchor}">{value:,}</text>')
    parts.append(_mark(median, f"median {median:,.0f}", scale, "median"))
    if limit is not None:
        parts.append(_mark(limit, f"limit {limit:,}", scale, "limit"))
    return "".join([*parts, "</svg>"])


def _grid(largest: int) -> list[str]:
    base = _HEIGHT - _BOTTOM
    lines = []
    for value in _ticks(largest, 3):
        y = base - (base - _TOP) * value / largest
        lines.append(f'<line class="grid" x1="{_LEFT:g}" x2="{_WIDTH:g}" y1="{y:.1f}" y2="{y:.1f}"/>')
        lines.append(f'<text x="{_LEFT - 8:g}" y="{y + 4:.1f}" text-anchor="end">{number(value)}</text>')
    return lines


def _mark(value: float, label: str, scale: float, kind: str) -> str:
    x = _LEFT + value * scale
    anchor = "end" if x > _WIDTH * 0.6 else "start"
    offset = -6 if anchor == "end" else 6
    line = f'<line class="{kind}" x1="{x:.1f}" x2="{x:.1f}" y1="{_TOP - 12:g}" y2="{_HEIGHT - _BOTTOM:g}"/>'
    return f'{line}<text class="{kind}" x="{x + offset:.1f}" y="{_TOP - 4:g}" text-anchor="{anchor}">{label}</text>'


def _ticks(largest: int, most: int = 6) -> list[int]:
    """Return round numbers from 0 to the largest, at most `most` steps."""
    step = 1
    while largest / step > most:
        step = step * 5 // 2 if str(step).startswith("2") else step * 2
    return list(range(0, largest + 1, step))
