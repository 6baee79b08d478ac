"""The picture in docs/performance.md: requests per interval, and CPU, by how many wait."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from triggerer import Result

WIDTH, HEIGHT, LEFT, TOP = 380, 260, 60, 40
COLOURS = ("#999999", "#0a7d4f", "#34b27b", "#c0392b", "#d98324", "#6c5ce7")


def picture(numbers: Sequence[int], results: Mapping[str, Sequence[Result]]) -> str:
    """Return an SVG with two charts, both axes logarithmic."""
    requests = {name: [one.requests_per_interval for one in of] for name, of in results.items()}
    cpu = {name: [one.cpu_percent for one in of] for name, of in results.items()}
    legend = "".join(
        f'<rect x="{LEFT + (place % 2) * 400}" y="{TOP + HEIGHT + 50 + place // 2 * 20}" width="12" '
        f'height="12" fill="{COLOURS[place]}"/><text x="{LEFT + 18 + (place % 2) * 400}" '
        f'y="{TOP + HEIGHT + 61 + place // 2 * 20}">{name}</text>'
        for place, name in enumerate(results)
    )
    size = f"{2 * (WIDTH + LEFT) + 40} {HEIGHT + TOP + 120}"
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {size}" '
        'font-family="sans-serif" font-size="12"><rect width="100%" height="100%" fill="white"/>'
        f"{_chart('requests per interval', numbers, requests, 0)}"
        f"{_chart('CPU of the triggerer, % of a core', numbers, cpu, WIDTH + LEFT + 20)}{legend}</svg>\n"
    )


def _chart(title: str, numbers: Sequence[int], lines: Mapping[str, Sequence[float]], at: int) -> str:
    highest = max(1.0, *(value for line in lines.values() for value in line))
    lowest = 0.1

    def x(number: float) -> float:
        return at + LEFT + WIDTH * math.log10(max(number, 1)) / max(math.log10(numbers[-1]), 1)

    def y(value: float) -> float:
        part = (math.log10(max(value, lowest)) - math.log10(lowest)) / (
            math.log10(highest) - math.log10(lowest)
        )
        return TOP + HEIGHT * (1 - part)

    parts = [f'<text x="{at + LEFT}" y="{TOP - 15}" font-weight="bold">{title}</text>']
    for power in range(-1, math.floor(math.log10(highest)) + 1):
        value = 10.0**power
        parts.append(
            f'<line x1="{at + LEFT}" x2="{at + LEFT + WIDTH}" y1="{y(value):.1f}" y2="{y(value):.1f}" '
            f'stroke="#dddddd"/><text x="{at + LEFT - 8}" y="{y(value) + 4:.1f}" text-anchor="end">'
            f"{value:g}</text>"
        )
    for number in numbers:
        parts.append(
            f'<text x="{x(number):.1f}" y="{TOP + HEIGHT + 18}" text-anchor="middle">{number}</text>'
        )
    parts.append(
        f'<text x="{at + LEFT + WIDTH / 2:.0f}" y="{TOP + HEIGHT + 36}" text-anchor="middle">'
        "waiting triggers</text>"
    )
    for place, values in enumerate(lines.values()):
        points = " ".join(
            f"{x(number):.1f},{y(value):.1f}" for number, value in zip(numbers, values, strict=True)
        )
        parts.append(
            f'<polyline points="{points}" fill="none" stroke="{COLOURS[place]}" stroke-width="2.5"/>'
        )
    return "".join(parts)
