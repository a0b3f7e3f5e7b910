"""Lines over time as an SVG that stands alone."""

from __future__ import annotations

from html import escape

Lines = dict[str, list[float | None]]

_COLOURS = (
    "#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#666666", "#000000",
)  # fmt: skip  # Okabe and Ito's: told apart by the colour-blind too
_WIDTH, _HEIGHT, _LEFT, _RIGHT, _TOP, _BOTTOM = 860, 300, 60, 190, 40, 40
_STEPS = 5


def chart(title: str, lines: Lines, across: str) -> str:
    """Return one drawing: each line a name and its values by period, None where there is none."""
    values = [value for line in lines.values() for value in line if value is not None]
    low, high = min(values, default=0.0), max(values, default=1.0)
    margin = (high - low or 1.0) * 0.05
    low, high = low - margin, high + margin
    count = max((len(line) for line in lines.values()), default=1)

    def x(at: int) -> float:
        return _LEFT + at * (_WIDTH - _LEFT - _RIGHT) / max(1, count - 1)

    def y(value: float) -> float:
        return _TOP + (high - value) * (_HEIGHT - _TOP - _BOTTOM) / (high - low)

    parts = [f'<text x="{_LEFT}" y="20" font-weight="bold">{escape(title)}</text>']
    for step in range(_STEPS):
        value = low + (high - low) * step / (_STEPS - 1)
        parts.append(
            f'<path d="M{_LEFT} {y(value):.1f}H{_WIDTH - _RIGHT}" stroke="#ddd"/>'
            f'<text x="{_LEFT - 8}" y="{y(value) + 4:.1f}" text-anchor="end">{value:.3f}</text>'
        )
    parts += [
        f'<text x="{x(at):.1f}" y="{_HEIGHT - 20}" text-anchor="middle">{at + 1}</text>'
        for at in range(0, count, max(1, count // 12))
    ]
    parts.append(
        f'<text x="{(_LEFT + _WIDTH - _RIGHT) / 2}" y="{_HEIGHT - 4}" text-anchor="middle">'
        f"{escape(across)}</text>"
    )
    for nth, (name, line) in enumerate(lines.items()):
        colour = _COLOURS[nth % len(_COLOURS)]
        points = [f"{x(at):.1f},{y(v):.1f}" for at, v in enumerate(line) if v is not None]
        parts.append(
            f'<polyline points="{" ".join(points)}" fill="none" stroke="{colour}" '
            f'stroke-width="2"/><text x="{_WIDTH - _RIGHT + 10}" y="{_TOP + 10 + nth * 18}" '
            f'fill="{colour}">{escape(name)}</text>'
        )
    return f'<g transform="translate(0 {{at}})">{"".join(parts)}</g>'


def page(charts: list[str]) -> str:
    """Put drawings below one another into a whole SVG."""
    body = "".join(part.replace("{at}", str(nth * _HEIGHT)) for nth, part in enumerate(charts))
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{_WIDTH}" '
        f'height="{_HEIGHT * len(charts)}" font-family="sans-serif" font-size="12">'
        f'<rect width="100%" height="100%" fill="white"/>{body}</svg>\n'
    )
