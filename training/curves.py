"""Draw the learning curves: how often the positive of a development query is first, and the mean reciprocal rank.

python training/curves.py training/curves    # every .json of the folder, into curves.svg
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

WIDTH, HEIGHT, EDGE = 300, 170, 30
LOW, HIGH = 0.40, 0.70


def panel(name: str, points: list[dict], left: int) -> str:
    """Return one chart."""
    last = max(point["step"] for point in points) or 1

    def place(point: dict, value: str) -> str:
        across = left + EDGE + (WIDTH - 2 * EDGE) * point["step"] / last
        return f"{across:.1f},{HEIGHT - EDGE - (HEIGHT - 2 * EDGE) * (point[value] - LOW) / (HIGH - LOW):.1f}"

    lines = [f'<text x="{left + EDGE}" y="16" font-weight="bold">{name}</text>']
    for value, colour, label in (("dev_mrr", "#0a6", "MRR"), ("dev_first", "#06c", "first of nine")):
        path = " ".join(place(point, value) for point in points)
        lines.append(f'<polyline fill="none" stroke="{colour}" stroke-width="1.5" points="{path}"/>')
        across, down = place(points[-1], value).split(",")
        lines.append(f'<text x="{across}" y="{float(down) - 4}" text-anchor="end" fill="{colour}">{label}</text>')
    for height in (LOW, 0.5, 0.6, HIGH):
        down = HEIGHT - EDGE - (HEIGHT - 2 * EDGE) * (height - LOW) / (HIGH - LOW)
        lines.append(f'<line x1="{left + EDGE}" x2="{left + WIDTH - EDGE}" y1="{down}" y2="{down}" stroke="#ddd"/>')
        lines.append(f'<text x="{left + EDGE - 4}" y="{down + 3}" text-anchor="end">{height:.1f}</text>')
    lines.append(f'<text x="{left + WIDTH - EDGE}" y="{HEIGHT - 12}" text-anchor="end">{last} steps</text>')
    return "\n".join(lines)


def main() -> None:
    """Write curves.svg."""
    folder = Path(sys.argv[1])
    files = sorted(folder.glob("*.json"))
    panels = [
        panel(file.stem, json.loads(file.read_text("utf-8")), number * WIDTH) for number, file in enumerate(files)
    ]
    size = f'width="{WIDTH * len(files)}" height="{HEIGHT}"'
    head = f'<svg xmlns="http://www.w3.org/2000/svg" {size} font-family="sans-serif" font-size="9">'
    (folder / "curves.svg").write_text("\n".join([head, *panels, "</svg>"]) + "\n", "utf-8")


if __name__ == "__main__":
    main()
