"""One style, one colour for each strategy, and how a figure is finished.

A figure script draws with matplotlib, asserts what its caption claims, and ends with `finish(__file__, figure,
caption)`, which writes NAME.pdf, NAME.svg, NAME.png and the caption NAME.md to the folder `out` beside the script,
the same bytes for the same input. The last line of NAME.md names what the figure was made from (every module of the
project that the script imported, the data that went through `uses`, and the style), so that `make figures` knows when
it is stale.

Figures belong to no window, so they need no screen, and importing this module leaves the choice of matplotlib's backend
to the user: the plots take any axes, those of a notebook as well.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import matplotlib.style
import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from toymodel import files, provenance
from toymodel.provenance import uses as uses

STYLE = Path(__file__).with_name("toymodel.mplstyle")

# Okabe and Ito's colours, the purple made lighter: distinct for the colour-blind (tests/test_figures.py) and in print
COLOURS = {
    "icl": "#0072B2",
    "ciwl": "#D55E00",
    "iwl": "#D98CB6",
    "loss": "#000000",
    "cost": "#6E6E6E",
    "shared": "#009E73",
    "other": "#E69F00",
    "light": "#56B4E9",
    "none": "#D9D9D9",
}
NAMES = {
    "icl": "ICL",
    "ciwl": "CIWL",
    "iwl": "pure IWL",
    "loss": "total loss",
    "cost": "competition",
}
TIME = "time (steps x step size)"
RELAXED = 100  # the random parts of the paper's starts have decayed by this time
VECTORS = {"a": COLOURS["icl"], "b": COLOURS["shared"], "c": "#6FCBAE", "d": COLOURS["ciwl"], "e": COLOURS["light"]}

# what matplotlib would write of the date and of itself into each kind of file
DATELESS: dict[str, dict[str, Any]] = {
    "pdf": {"CreationDate": None, "ModDate": None},
    "svg": {"Date": None},
    "png": {"Software": None},
}


def new(rows: int = 1, columns: int = 1, width: float = 7.0, height: float = 3.0, **others: Any) -> tuple[Figure, Any]:
    """A figure in the project's style and its axes, as matplotlib's subplots; width and height in inches."""
    matplotlib.style.use(STYLE)
    figure = Figure(figsize=(width, height), layout="constrained")
    return figure, figure.subplots(rows, columns, **others)


def losses(axes: Axes, run: xr.Dataset, *names: str, **style: Any) -> None:
    """The losses of one run against time, by default the total and each mechanism; a competition term is dashed.

    Raises ValueError for a batch of runs.
    """
    mechanisms = [str(n) for n in run.data_vars if str(n).startswith("loss_")]
    for name in names or ("loss", *mechanisms):
        if batch := {str(dim): size for dim, size in run[name].sizes.items() if dim != "time"}:
            one = ", ".join(f"{dim}=0" for dim in batch)
            raise ValueError(f"losses draws one run, got a batch along {batch}; select one, such as runs.isel({one})")
        key = name.removeprefix("loss_")
        own = {"color": COLOURS.get(key, COLOURS["other"]), "label": NAMES.get(key, key)}
        axes.plot(run["time"], run[name], **{**own, "ls": "--" if key == "cost" else "-", **style})
    axes.set_xlabel(TIME)
    axes.set_ylabel("loss")


def overlaps(axes: Axes, run: xr.Dataset, quantity: str = "overlap", **style: Any) -> None:
    """The overlap (or residual) of each vector of one run against time, in units of the norm of its target.

    Raises ValueError for a batch of runs.
    """
    shares = run[quantity] / run["target_norm"]
    if set(shares.dims) != {"time", "vector"}:
        raise ValueError(
            f"overlaps draws one run, got a batch along {sorted(map(str, set(shares.dims) - {'time', 'vector'}))}"
        )
    for x in run["vector"].values.tolist():
        own = {"color": VECTORS.get(x, COLOURS["other"]), "label": x}
        axes.plot(run["time"], shares.sel(vector=x), **{**own, **style})
    axes.set(xlabel=TIME, ylabel=f"{quantity} / norm of the target")


def portrait(axes: Axes, runs: xr.Dataset, x: str, y: str, **style: Any) -> None:
    """The paths of runs in the plane of the overlaps of two vectors; a point where each begins.

    Raises ValueError for a vector that the runs do not have.
    """
    known = runs["vector"].values.tolist()
    if wrong := [name for name in (x, y) if name not in known]:
        raise ValueError(f"portrait: unknown vector {wrong[0]!r}; the runs have {known}")
    along, up = (runs["overlap"].sel(vector=name).transpose("time", ...).values for name in (x, y))
    along, up = along.reshape(len(along), -1), up.reshape(len(up), -1)
    axes.plot(along, up, **{"color": COLOURS["loss"], "lw": 0.8, **style})
    axes.plot(along[0], up[0], "o", ms=3, color=style.get("color", COLOURS["loss"]))
    axes.set(xlabel=f"overlap of {x}", ylabel=f"overlap of {y}")


def seeds(axes: Any, runs: xr.Dataset, until: xr.DataArray, icl: xr.Dataset) -> None:
    """One panel for each seed: losses and the competition term, pale after the time `until` (NaN: to the end).

    icl: measures of ICL, whose emergence and end bound a band. What lies above the axis is the decay from the start.
    """
    names = ("loss_icl", "loss_ciwl", "cost")
    highest = runs[["loss", *names]].sel(time=slice(RELAXED, None)).to_dataarray().max(["variable", "time"])
    last = float(runs["time"][-1])
    for panel, seed in zip(axes.flat, runs["seed"].values, strict=True):
        run, stop = runs.sel(seed=seed), float(until.fillna(last).sel(seed=seed))
        for part, style in ((slice(stop, None), {"alpha": 0.3, "label": "_nolegend_"}), (slice(0, stop), {})):
            losses(panel, run.sel(time=part), *names, **style)
            losses(panel, run.sel(time=part), "loss", lw=0.8, **style)  # thin: seen where it equals that of ICL
        if stop < last:
            panel.axvline(stop, color=COLOURS["loss"], lw=0.7, ls=":")
        learned = icl.sel(seed=seed)
        if np.isfinite(learned.emergence):
            band = float(learned.emergence), float(learned.emergence + learned.lifetime)
            panel.axvspan(*band, color=COLOURS["icl"], alpha=0.1, lw=0)
        panel.set(xlim=(0, 1.03 * last), ylim=(0, 1.1 * float(highest.sel(seed=seed))))
        panel.set_title(f"seed {seed}", loc="left")
        panel.locator_params(axis="y", nbins=4)
        thousands(panel)
        if panel not in axes[:, 0]:
            panel.set_ylabel("")
        if panel not in axes[-1]:
            panel.set_xlabel("")
    axes.flat[0].figure.legend(*axes.flat[0].get_legend_handles_labels(), loc="outside lower center", ncols=4)


def log_time(axes: Axes, start: float | None = None) -> None:
    """A logarithmic axis of time that begins at `start`, by default at the first positive time that is drawn."""
    axes.set_xscale("log")
    axes.set_xlim(left=axes.dataLim.minposx if start is None else start)
    axes.set_xlabel(TIME)


def thousands(axes: Axes) -> None:
    """A linear axis of time in thousands of steps, for runs whose step size is 1."""
    axes.xaxis.set_major_formatter(lambda time, _position: f"{time / 1000:g}")
    axes.set_xlabel("time (1,000 steps)")


def shades(count: int) -> np.ndarray:
    """Colours for a quantity that grows, light to dark and the light ones strong enough for lines on white."""
    return matplotlib.colormaps["viridis_r"](np.linspace(0.15, 1, count))


def panel_letters(axes: Any) -> None:
    """a, b, c, ... at the upper left corner of each panel."""
    for letter, panel in zip("abcdefghijklmnopqrstuvwxyz", axes, strict=False):
        panel.text(-0.02, 1.04, letter, transform=panel.transAxes, fontweight="bold", ha="right", va="bottom")


def finish(script: str, figure: Figure, caption: str, table: str = "") -> Path:
    """Writes the figure of a script in three formats and its caption; returns the path of the PNG.

    A table (Markdown) stands below the caption. The caption, whose last line says what the figure was made from, comes
    last: a run that was cut off is repeated.
    """
    source = Path(script).resolve()
    folder = source.parent / "out"
    folder.mkdir(exist_ok=True)
    name = source.stem
    for kind, metadata in DATELESS.items():
        with files.written(folder / f"{name}.{kind}") as whole:
            figure.savefig(whole, format=kind, metadata=metadata)
    page = folder / f"{name}.md"
    parts = [f"![{name}]({name}.png)", " ".join(caption.split()), *([table] if table else [])]
    mark = provenance.stamp(
        page, source.parent.parent, provenance.made_from(source, STYLE), [f"{name}.{k}" for k in DATELESS]
    )
    with files.written(page) as whole:
        whole.write_text("\n\n".join([*parts, mark]) + "\n")
    return folder / f"{name}.png"


def save(figure: Figure, path: Path) -> Path:
    """Writes a figure in the format of the path's ending, whole or not at all.

    Raises OSError where it cannot be written.
    """
    with files.written(path) as whole:
        figure.savefig(whole)
    return path
