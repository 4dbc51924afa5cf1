"""The ratios as a picture: how many times as fast as each rival, and how many times each floor."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter

from bench.results import Results, Row
from bench.targets import FLOOR, OURS, WALL_TIME

COLOURS = {"held": "#2a7f4f", "missed": "#c8552b", "": "#9aa5b1"}
MEANINGS = {"held": "target held", "missed": "target missed", "": "no target"}
STYLE = {"svg.fonttype": "none", "svg.hashsalt": "msm_fast", "font.size": 8}
BAR_INCHES = 0.19

Bars = list[tuple[str, list[Row]]]


def draw(results: Results, path: Path) -> None:
    """Write the chart as SVG; the same results give the same bytes."""
    groups = [(group, results.rows(group)) for group in results.groups if not group.endswith(WALL_TIME)]
    rivals = _bars(groups, lambda row: row.contender != OURS and not row.contender.startswith(FLOOR))
    floors = _bars(groups, lambda row: row.contender.startswith(FLOOR))
    heights = [sum(len(rows) + 1 for _, rows in bars) for bars in (rivals, floors)]
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(8.5, BAR_INCHES * sum(heights) + 1.6), facecolor="white", layout="constrained")
        upper, lower = figure.subplots(2, 1, height_ratios=heights)
        _panel(upper, rivals, "msm_fast is so many times as fast as …  (right of the line: faster)")
        _panel(lower, floors, "msm_fast takes so many times the duration of a floor, which does less than anyone must")
        handles = [mpl.patches.Patch(color=COLOURS[verdict], label=meaning) for verdict, meaning in MEANINGS.items()]
        handles.append(mpl.lines.Line2D([], [], color="black", marker="|", linestyle="", label="target"))
        figure.legend(handles=handles, loc="outside lower center", ncols=len(handles), frameon=False)
        FigureCanvasSVG(figure).print_svg(path, metadata={"Date": None})


def _bars(groups: Bars, is_wanted: Callable[[Row], bool]) -> Bars:
    chosen = [(group, [row for row in rows if row.ratio is not None and is_wanted(row)]) for group, rows in groups]
    return [(group, rows) for group, rows in chosen if rows]


def _panel(axes: Any, bars: Bars, title: str) -> None:
    """Draw bars from 1 on a logarithmic scale, each group under its name."""
    labels: dict[int, str] = {}
    y = 0
    for group, rows in bars:
        heading = f"{group[0].upper()}{group[1:]}"
        axes.text(0, y, heading, transform=axes.get_yaxis_transform(), weight="bold", va="center")
        for row in rows:
            y += 1
            labels[y] = row.contender.removeprefix(FLOOR)
            _bar(axes, y, row)
        y += 1
    axes.set_title(title, loc="left", fontsize=9, pad=8)
    axes.set_xscale("log")
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}x"))
    axes.margins(x=0.12)
    axes.set_ylim(y, -1)
    axes.axvline(1, color="black", linewidth=0.8)
    axes.set_yticks(list(labels), list(labels.values()))
    axes.tick_params(axis="y", length=0)
    axes.spines[["top", "right", "left"]].set_visible(False)


def _bar(axes: Any, y: int, row: Row) -> None:
    assert row.ratio is not None
    ratio = row.ratio.median
    axes.barh(y, ratio - 1, left=1, color=COLOURS[row.verdict], height=0.7)
    limit = ratio if row.target is None else row.target.limit
    if row.target is not None:
        axes.plot([limit], [y], color="black", marker="|", markersize=10, linestyle="")
    is_faster = ratio >= 1
    axes.text(
        max(ratio, limit) if is_faster else ratio,
        y,
        f"  {ratio:.3g}x  ",
        va="center",
        ha="left" if is_faster else "right",
        fontsize=7,
    )
