"""The picture in ARCHITECTURE.md, drawn from the package's imports: ``python tools/architecture.py`` writes it anew.

A room is a module at the top level of the package, or a folder. It stands one floor above the highest room that it
imports. An arrow that another path implies is left out of the drawing; the table below it names every import.
"""

from __future__ import annotations

import ast
import re
from functools import cache
from html import escape
from pathlib import Path

from project import ROOT

LIB = ROOT / "lib" / "repdyn"
PICTURE = ROOT / "tools" / "architecture.svg"
PAGE = ROOT / "ARCHITECTURE.md"
BEGIN, END = "<!-- from the imports: make architecture -->", "<!-- end -->"

WIDTH, HEIGHT, GAP, MARGIN = 150, 46, 46, 16  # of a room; between floors; around all


def rooms() -> dict[str, list[Path]]:
    """Name of a room -> its files."""
    found: dict[str, list[Path]] = {}
    for path in sorted(LIB.rglob("*.py")):
        first = path.relative_to(LIB).parts[0].removesuffix(".py")
        if first != "__init__":  # the table of public names, which imports nothing before it is asked
            found.setdefault(first, []).append(path)
    return found


def imported(path: Path) -> set[str]:
    """Rooms that a file imports from, in whatever scope."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module:
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        else:
            continue
        found |= {name.split(".")[1] for name in names if name.startswith("repdyn.")}
    return found


def arrows() -> dict[str, set[str]]:
    """Room -> the rooms below it that it imports."""
    there = rooms()
    return {
        room: {other for path in paths for other in imported(path) if other in there and other != room}
        for room, paths in there.items()
    }


def floors(below: dict[str, set[str]]) -> dict[str, int]:
    """Room -> its floor, from 1; ``ValueError`` for a circle, which has none."""

    @cache
    def floor(room: str, above: tuple[str, ...] = ()) -> int:
        if room in above:
            raise ValueError(f"a circle of imports: {' -> '.join([*above, room])}")
        return 1 + max((floor(other, (*above, room)) for other in below[room]), default=0)

    return {room: floor(room) for room in below}


def direct(below: dict[str, set[str]]) -> dict[str, set[str]]:
    """The arrows that no longer path implies."""

    @cache
    def reach(room: str) -> frozenset[str]:
        return frozenset(below[room]).union(*(reach(other) for other in below[room]))

    return {room: {o for o in others if not any(o in reach(via) for via in others)} for room, others in below.items()}


def drawing() -> str:
    """The picture as SVG."""
    below, there = arrows(), rooms()
    level = floors(below)
    top = max(level.values())
    rows = [sorted(room for room in level if level[room] == number) for number in range(top, 0, -1)]
    widest = max(map(len, rows))
    full = widest * WIDTH + (widest - 1) * 14 + 2 * MARGIN
    place = {}
    for y, row in enumerate(rows):
        left = (full - len(row) * WIDTH - (len(row) - 1) * 14) / 2
        for x, room in enumerate(row):
            place[room] = (left + x * (WIDTH + 14), MARGIN + y * (HEIGHT + GAP))
    lines = []
    for room, others in sorted(direct(below).items()):
        for other in sorted(others):
            (x1, y1), (x2, y2) = place[room], place[other]
            start, end = (x1 + WIDTH / 2, y1 + HEIGHT), (x2 + WIDTH / 2, y2)
            lines.append(
                f'<path d="M{start[0]:.0f} {start[1]:.0f} C{start[0]:.0f} {start[1] + 30:.0f} {end[0]:.0f} '
                f'{end[1] - 30:.0f} {end[0]:.0f} {end[1] - 4:.0f}" marker-end="url(#tip)"/>'
            )
    boxes = []
    for room, (left, upper) in sorted(place.items()):
        size = f"{len(there[room])} files" if len(there[room]) > 1 else "1 file"
        boxes.append(
            f'<rect x="{left:.0f}" y="{upper:.0f}" width="{WIDTH}" height="{HEIGHT}" rx="6"/>'
            f'<text x="{left + WIDTH / 2:.0f}" y="{upper + 20:.0f}">{escape(room)}</text>'
            f'<text class="size" x="{left + WIDTH / 2:.0f}" y="{upper + 36:.0f}">{size}</text>'
        )
    height = 2 * MARGIN + top * HEIGHT + (top - 1) * GAP
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {full} {height}" role="img" '
        f'aria-label="The rooms of lib/repdyn on {top} floors; every arrow points down">\n'
        "<style>rect{fill:#fff;stroke:#333}path{fill:none;stroke:#0072B2;stroke-opacity:.55;stroke-width:1.4}"
        "text{font:600 14px sans-serif;text-anchor:middle;fill:#111}.size{font:12px sans-serif;fill:#555}</style>\n"
        '<defs><marker id="tip" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" orient="auto">'
        '<path d="M0 0L8 4L0 8z" style="fill:#0072B2;stroke:none"/></marker></defs>\n'
        f'<rect width="{full}" height="{height}" style="stroke:none"/>\n' + "\n".join(lines + boxes) + "\n</svg>\n"
    )


def purpose(room: str) -> str:
    """The first sentence of a room's docstring."""
    path = LIB / room / "__init__.py" if (LIB / room).is_dir() else LIB / f"{room}.py"
    text = (ast.get_docstring(ast.parse(path.read_text())) or "").split("\n\n")[0]
    return re.sub(r"\s+", " ", text.replace("``", "`"))


def table() -> str:
    """Every room with its floor, what it is for, and every room that it imports."""
    below = arrows()
    level = floors(below)
    lines = ["| floor | room | what it is for | imports |", "|---|---|---|---|"]
    for room in sorted(level, key=lambda name: (-level[name], name)):
        names = ", ".join(sorted(below[room])) or "nothing"
        lines.append(f"| {level[room]} | `{room}` | {purpose(room)} | {names} |")
    return "\n".join(lines)


def page(text: str) -> str:
    """The page with its table made anew."""
    before, rest = text.split(BEGIN)
    return f"{before}{BEGIN}\n{table()}\n{END}{rest.split(END)[1]}"


if __name__ == "__main__":
    PICTURE.write_text(drawing())
    PAGE.write_text(page(PAGE.read_text()))
