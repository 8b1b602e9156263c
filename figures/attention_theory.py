"""Theory of the disentangled network against trained ones, with no fitted number: curves of flip, and landmarks.

Drawn from figures/data/theory_attention.nc, which `python benchmarks/theory_attention.py` writes.
"""

from pathlib import Path

import matplotlib
import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.ticker import NullFormatter

from toymodel import plotting

DATA = Path(__file__).parent / "data" / "theory_attention.nc"
VARIED = {"noise": "noise within classes", "classes": "classes", "features": "dimension D"}
LANDMARKS = {"emergence": "emergence (step)", "peak": "highest flip", "end": "end of ICL (step)"}
BASE = {"noise": 1.2, "classes": 3000, "features": 32, "exemplars": 20, "barrier": 2.0, "factor": 1.0}


def alone(found: xr.Dataset, name: str) -> xr.Dataset:
    """The settings that differ from the network of the other figures in one value only, by that value."""
    same = np.all([found[other].values == value for other, value in BASE.items() if other != name], axis=0)
    return found.isel(case=np.flatnonzero(same)).sortby(name)


def curves(axes: Axes, found: xr.Dataset, name: str) -> None:
    """Networks as dots, the theory as lines, one colour a value."""
    chosen = alone(found, name)
    colours = matplotlib.colormaps["viridis"](np.linspace(0, 0.9, chosen.sizes["case"]))
    for i, colour in enumerate(colours):
        one = chosen.isel(case=i)
        step = np.arange(one.sizes["point"]) * int(one.every) / 1000
        axes.plot(step[::4], one.network_flip[::4], ".", ms=2.5, color=colour)
        axes.plot(step, one.theory_flip, lw=1, color=colour, label=f"{float(one[name]):g}")
    axes.set(xlabel="steps (thousands)", ylabel="flip (1: ICL, 0: CIWL)", ylim=(0, 1.03))
    place = {"loc": "lower center", "bbox_to_anchor": (0.5, 1.0), "ncols": 4, "columnspacing": 0.8, "handlelength": 1.0}
    axes.legend(title=VARIED[name], fontsize=5.5, title_fontsize=6.5, **place)


def scatter(axes: Axes, found: xr.Dataset, name: str) -> None:
    """Theory against network, one dot a setting."""
    network, theory = found[f"network_{name}"], found[f"theory_{name}"]
    low, high = float(min(network.min(), theory.min())) * 0.9, float(max(network.max(), theory.max())) * 1.1
    axes.plot([low, high], [low, high], color=plotting.COLOURS["none"], lw=1)
    axes.plot(network, theory, ".", color=plotting.COLOURS["icl"])
    axes.set(xlabel=f"{LANDMARKS[name]}, network", ylabel="theory", xlim=(low, high), ylim=(low, high))
    if name != "peak":
        axes.set(xscale="log", yscale="log")
        for axis in (axes.xaxis, axes.yaxis):
            axis.set_minor_formatter(NullFormatter())


def main() -> None:
    found = xr.load_dataset(plotting.uses(DATA), engine="h5netcdf")
    median = found.attrs
    assert median["emergence"] < 0.1 and median["peak"] < 0.05 and median["end"] < 0.2 and median["R2"] > 0.95

    fig, axes = plotting.new(2, 3, 7.2, 4.6)
    for ax, name in zip(axes[0], VARIED, strict=True):
        curves(ax, found, name)
    for ax, name in zip(axes[1], LANDMARKS, strict=True):
        scatter(ax, found, name)
    plotting.panel_letters(axes.flat)
    caption = f"""The disentangled network (dots, mean over seeds) and its theory in order parameters (lines,
    `toymodel.theory.attention_flow.predict`); nothing is fitted. (a to c) Flip against step for several values of the
    noise within classes, of the number of classes and of the dimension. (d to f) Emergence, highest flip and end of ICL
    over {int(median["settings"])} settings: median errors {100 * median["emergence"]:.1f} %, {median["peak"]:.3f} and
    {100 * median["end"]:.1f} %, median R2 of the curves {median["R2"]:.3f}. The dots have D = 128 and 256 beside; at
    256 the theory has no ICL in the time shown. Settings that never emerge or never end, in the network or in the
    theory, are not among the dots of (d) and (f)."""
    plotting.finish(__file__, fig, caption)


if __name__ == "__main__":
    main()
