"""Reliability plot: predicted probability against the observed share of relevant documents."""

from __future__ import annotations

import importlib.util
import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..core.errors import ConfigError, MissingExtra

__all__ = ["check_plot_path", "draw_reliability_plot"]


def check_plot_path(path: Path) -> None:
    """Check that a plot can be written to `path`, before any score is paid for.

    Raises:
        ConfigError: The suffix is neither `.svg` nor `.html`.
        MissingExtra: matplotlib is not installed.
    """
    if path.suffix not in (".svg", ".html"):
        raise ConfigError(f"The plot's file must end in .svg or .html, got {path.name}: change its suffix.")
    if importlib.util.find_spec("matplotlib") is None:
        raise MissingExtra("A reliability plot", extra="calibration", package="matplotlib")


def draw_reliability_plot(held_out: Mapping[str, Any], title: str, path: Path) -> None:
    """Write a plot of the calibration before and after the fit, with the number of documents per bin.

    Args:
        held_out: The second result of `fit`.
        title: The label of the reranker.
        path: A `.svg` file, or a `.html` file with the SVG inside. Neither needs the network.

    Raises:
        ConfigError, MissingExtra: As `check_plot_path`.
    """
    check_plot_path(path)
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6, 7), layout="constrained")
    FigureCanvasSVG(figure)
    above, below = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
    above.plot([0, 1], [0, 1], color="#777777", linewidth=1, linestyle="--", label="perfect calibration")
    for name, colour, marker in (("before", "#c05a00", "s"), ("after", "#0059b3", "o")):
        metrics = held_out[name]
        chances, shares, counts = zip(*metrics["bins"], strict=True)
        label = f"{name}: ECE {metrics['ece']:.3f}, Brier {metrics['brier']:.3f}"
        above.plot(chances, shares, color=colour, marker=marker, markersize=4, label=label)
        below.plot(chances, counts, color=colour, marker=marker, markersize=4)
    above.set(title=title, ylabel="share that is relevant", ylim=(-0.02, 1.02))
    above.legend(loc="upper left")
    below.set(xlabel="relevance_score", ylabel="documents", yscale="log", xlim=(-0.02, 1.02))
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", metadata={"Date": None, "Title": title})
    picture = buffer.getvalue()
    if path.suffix == ".html":
        head = f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{_escape(title)}</title>'
        page = '<meta name="viewport" content="width=device-width"><style>svg{max-width:100%;height:auto}</style>'
        picture = f"{head}{page}{picture[picture.index('<svg') :]}</html>\n"
    path.write_text(picture, "utf-8")


def _escape(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;")
