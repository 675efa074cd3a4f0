"""The reliability plot: what was said against what was so."""

from __future__ import annotations

import importlib.util
import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..core.errors import ConfigError, MissingExtra

__all__ = ["plot", "plottable"]


def plottable(path: Path) -> None:
    """See, before anything is paid for, that a plot can be drawn there.

    Raises:
        ConfigError: The ending is neither `.svg` nor `.html`.
        MissingExtra: matplotlib is not installed.
    """
    if path.suffix not in (".svg", ".html"):
        raise ConfigError(f"The plot is written as .svg or .html, and {path.name} is neither: change its ending.")
    if importlib.util.find_spec("matplotlib") is None:
        raise MissingExtra("A reliability plot", extra="calibration", package="matplotlib")


def plot(held_out: Mapping[str, Any], title: str, path: Path) -> None:
    """Draw `before` and `after` of a fit's figures, and how many documents each bin holds, into one file without network.

    Args:
        held_out: See `fit`.
        title: Whose scores.
        path: `.svg`, or `.html` with the picture in it.

    Raises:
        ConfigError, MissingExtra: As `plottable`.
    """
    plottable(path)
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6, 7), layout="constrained")
    FigureCanvasSVG(figure)
    above, below = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
    above.plot([0, 1], [0, 1], color="#777777", linewidth=1, linestyle="--", label="as it should be")
    for name, colour, mark in (("before", "#c05a00", "s"), ("after", "#0059b3", "o")):
        told = held_out[name]
        chances, shares, counts = zip(*told["bins"], strict=True)
        label = f"{name}: ECE {told['ece']:.3f}, Brier {told['brier']:.3f}"
        above.plot(chances, shares, color=colour, marker=mark, markersize=4, label=label)
        below.plot(chances, counts, color=colour, marker=mark, markersize=4)
    above.set(title=title, ylabel="share that is relevant", ylim=(-0.02, 1.02))
    above.legend(loc="upper left")
    below.set(xlabel="relevance_score", ylabel="documents", yscale="log", xlim=(-0.02, 1.02))
    drawn = io.StringIO()
    figure.savefig(drawn, format="svg", metadata={"Date": None, "Title": title})
    picture = drawn.getvalue()
    if path.suffix == ".html":
        head = f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{_plain(title)}</title>'
        page = '<meta name="viewport" content="width=device-width"><style>svg{max-width:100%;height:auto}</style>'
        picture = f"{head}{page}{picture[picture.index('<svg') :]}</html>\n"
    path.write_text(picture, "utf-8")


def _plain(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;")
