"""Charts as inline SVG: they scale with the page and follow its text colour."""

import html
import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

WIDTH, HEIGHT = 480, 260
LEFT, RIGHT, TOP, BOTTOM = 58, 12, 12, 40  # left: a title and five figures beside each other
MOST_TICKS = 6


class Series(NamedTuple):
    """One line of a chart."""

    name: str
    x: np.ndarray
    y: np.ndarray
    color: str
    dash: str = ""


def line_chart(series: Sequence[Series], x_title: str, y_title: str) -> str:
    """Lines over a common frame that starts at 0; an empty string where there is nothing to draw."""
    series = [one for one in series if len(one.x)]
    if not series:
        return ""
    highest_x, highest_y = (max(float(np.nanmax(getattr(one, axis))) for one in series) for axis in "xy")
    ticks_x, ticks_y = ticks(highest_x, whole=True), ticks(highest_y)  # epochs are whole
    x_scale, y_scale = (WIDTH - LEFT - RIGHT) / ticks_x[-1], (HEIGHT - TOP - BOTTOM) / ticks_y[-1]
    parts = [_frame(ticks_x, ticks_y, x_scale, y_scale, x_title, y_title)]
    for one in series:
        points = " ".join(
            f"{LEFT + x * x_scale:.1f},{HEIGHT - BOTTOM - y * y_scale:.1f}" for x, y in zip(one.x, one.y, strict=True)
        )
        dash = f' stroke-dasharray="{one.dash}"' if one.dash else ""
        parts.append(f'<polyline points="{points}" fill="none" stroke="{one.color}" stroke-width="2.5"{dash}/>')
    label = html.escape(f"{y_title} over {x_title}: {', '.join(one.name for one in series)}")
    return _svg(parts, label)


def histogram(groups: Sequence[tuple[str, np.ndarray, str]], x_title: str, num_bins: int = 40) -> str:
    """Counts of positive values on a logarithmic axis, groups stacked: (name, values, colour)."""
    values = np.concatenate([group[1] for group in groups])
    values = values[values > 0]
    if not len(values):
        return ""
    low, high = np.log10(values.min()), np.log10(values.max())
    if high - low < 0.1:
        low, high = low - 0.05, high + 0.05
    edges = np.linspace(low, high, num_bins + 1)
    counts = [np.histogram(np.log10(np.maximum(group[1], 10**low)), edges)[0] for group in groups]
    ticks_y = ticks(float(np.sum(counts, axis=0).max()))
    y_scale, step = (HEIGHT - TOP - BOTTOM) / ticks_y[-1], (WIDTH - LEFT - RIGHT) / num_bins
    marks = [base * 10.0**power for power in range(-6, 6) for base in (1, 2, 5)]
    if sum(low <= math.log10(mark) <= high for mark in marks) < 3:  # a narrow range: evenly spaced round numbers
        marks = [mark for mark in _step_ticks(10.0**low, 10.0**high) if mark > 0]
    shown = [(mark, LEFT + (math.log10(mark) - low) / (high - low) * (WIDTH - LEFT - RIGHT)) for mark in marks]
    shown = [(mark, place) for mark, place in shown if LEFT - 1 <= place <= WIDTH - RIGHT + 1]
    apart = [place for place in shown if place[0] / 10.0 ** math.floor(math.log10(place[0]) + 1e-9) < 1.5]
    shown = shown if len(shown) <= MOST_TICKS + 2 or len(apart) < 2 else apart  # powers of ten alone where others overlap
    parts = [_horizontal(ticks_y, y_scale, "samples"), _vertical_title(x_title)]
    parts += [_text(place, HEIGHT - BOTTOM + 16, f"{mark:g}", "middle") for mark, place in shown]
    base = np.zeros(num_bins)
    for (_, _, color), count in zip(groups, counts, strict=True):
        for place, (below, here) in enumerate(zip(base, count, strict=True)):
            if here:
                top = HEIGHT - BOTTOM - (below + here) * y_scale
                x = LEFT + place * step
                parts.append(
                    f'<rect x="{x:.1f}" y="{top:.1f}" width="{step - 1:.1f}" height="{here * y_scale:.1f}" fill="{color}"/>'
                )
        base += count
    return _svg(parts, html.escape(f"Histogram of {x_title}: {', '.join(name for name, _, _ in groups)}"))


def _step_ticks(low: float, high: float) -> list[float]:
    """Round numbers, evenly spaced, from low to high."""
    step = _round_step((high - low) / MOST_TICKS)
    return [step * number for number in range(math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9) + 1)]


def ticks(highest: float, whole: bool = False) -> list[float]:
    """Round numbers, or whole ones, from 0 to at least `highest`."""
    if not highest > 0:
        return [0.0, 1.0]
    step = _round_step(max(highest / (MOST_TICKS - 1), 1.0 if whole else 0.0))
    return [step * number for number in range(math.ceil(highest / step - 1e-9) + 1)]


def _round_step(rough: float) -> float:
    """The smallest of 1, 2, 5 times a power of ten that is not below `rough`."""
    power = 10.0 ** math.floor(math.log10(rough))
    return next(base * power for base in (1, 2, 5, 10) if base * power >= rough * (1 - 1e-9))


def _svg(parts: Sequence[str], label: str) -> str:
    return f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{label}">{"".join(parts)}</svg>'


def _frame(
    ticks_x: Sequence[float], ticks_y: Sequence[float], x_scale: float, y_scale: float, x_title: str, y_title: str
) -> str:
    names = [_text(LEFT + tick * x_scale, HEIGHT - BOTTOM + 16, f"{tick:g}", "middle") for tick in ticks_x]
    return _horizontal(ticks_y, y_scale, y_title) + "".join(names) + _vertical_title(x_title)


def _horizontal(ticks_y: Sequence[float], y_scale: float, title: str) -> str:
    parts = []
    for tick in ticks_y:
        y = HEIGHT - BOTTOM - tick * y_scale
        opacity = 0.7 if tick == 0 else 0.15
        parts.append(
            f'<line x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}" stroke="currentColor" opacity="{opacity}"/>'
        )
        parts.append(_text(LEFT - 6, y + 4, f"{tick:g}", "end"))
    x, y = 12, (HEIGHT - BOTTOM + TOP) / 2
    turned = f'text-anchor="middle" transform="rotate(-90 {x} {y})" fill="currentColor"'
    parts.append(f'<text x="{x}" y="{y}" {turned}>{html.escape(title)}</text>')
    return "".join(parts)


def _vertical_title(title: str) -> str:
    return _text((WIDTH + LEFT - RIGHT) / 2, HEIGHT - 6, title, "middle")


def _text(x: float, y: float, text: str, anchor: str) -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" fill="currentColor">{html.escape(text)}</text>'
