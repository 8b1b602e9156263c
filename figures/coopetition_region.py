"""The region of coopetition: ICL first, transient, and at least 10 times later, or not at all, once CIWL is blocked.

The shares of random starts are those of benchmarks/coopetition_region.py (figures/data/coopetition_region.nc).
"""

from pathlib import Path

import numpy as np
import xarray as xr

import toymodel as tm
from toymodel import plotting

DATA = Path(__file__).parent / "data" / "coopetition_region.nc"
MODELS = {"published": tm.coopetition(), "long_pathway": tm.long_pathway()}
FINE = np.geomspace(6e-4, 0.99, 400), np.geomspace(0.4, 9.1, 250)  # of the drawn law
PAPER, PRESET = (1.0, 1.0), (0.02, 4.0)  # scale of all but d, factor of the target of d
HELD = tm.Clamp("d", overlap=0, residual=0)


def region(model, scales, strengths):
    """The law, along strength and scale."""
    along = xr.DataArray(scales, dims="scale", coords={"scale": scales})
    cells = [tm.theory.region(model, along, 1.0, target_scale={"d": float(s)}) for s in strengths]
    return xr.concat(cells, xr.DataArray(strengths, dims="strength", name="strength"))


def example(ax, model, point):
    """ICL with and without CIWL, and CIWL, of one start at the point; the two times of emergence."""
    scales = {x: 1.0 if x == "d" else point[0] for x in model.vectors}
    targets = {x: point[1] if x == "d" else 1.0 for x in model.vectors}
    start, found = tm.random_start(model, [7], scale=scales, target_scale=targets).isel(seed=0), []
    for time, acts, terms in ((16_000, [], ("icl", "ciwl")), (80_000, [HELD], ("icl",))):
        run = tm.descend(model, start, 4 * time, lr=0.25, every=40, interventions=acts)
        found.append(float(tm.measure(run).emergence.sel(mechanism="icl")))
        for m in terms:
            style = {"ls": "--", "label": "ICL, CIWL blocked"} if acts else {"label": plotting.NAMES[m]}
            ax.plot(run.time[1:], (run[f"loss_{m}"] / run[f"unlearned_{m}"])[1:], color=plotting.COLOURS[m], **style)
    plotting.log_time(ax, 100)
    ax.legend(loc="upper left", ncols=3, fontsize=6)
    ax.set(xlabel="time (steps x step size)", ylabel="loss / unlearned loss", ylim=(-0.05, 1.3))
    return found


def main() -> None:
    shares = xr.load_dataset(plotting.uses(DATA), engine="h5netcdf")["all"]
    cells = shares.scale.values, shares.strength.values
    right = {m: float(((shares.sel(model=m) > 0.5) == region(MODELS[m], *cells)).mean()) for m in MODELS}
    base = {m: float((shares.sel(model=m) <= 0.5).mean()) for m in MODELS}
    assert all(right[m] > base[m] + 0.05 for m in MODELS) and not bool(tm.theory.region(MODELS["published"], *PAPER))
    fig, axes = plotting.new(2, 2, 7.0, 4.8)
    for ax, m in zip(axes[0], MODELS, strict=True):
        mesh = ax.pcolormesh(*cells, shares.sel(model=m), cmap="Greens", vmin=0, vmax=1, rasterized=True)
        ax.contour(*FINE, region(MODELS[m], *FINE), [0.5], colors=plotting.COLOURS["loss"], linewidths=1.2)
        ax.set(xscale="log", yscale="log", xlabel="initial scale of all but d", ylabel="target of d, times", title=m)
        ax.set_yticks([0.5, 1, 2, 4, 8], ["0.5", "1", "2", "4", "8"])
        ax.set_yticks([], minor=True)
    axes[0, 0].plot(*PAPER, "*", ms=9, color=plotting.COLOURS["ciwl"], clip_on=False)
    axes[0, 1].plot(*PRESET, "o", ms=6, color=plotting.COLOURS["icl"])
    left = {"textcoords": "offset points", "ha": "right", "va": "center"}
    axes[0, 0].annotate("the paper's", PAPER, (-7, 0), **left)
    axes[0, 1].annotate("the preset's start", PRESET, (-7, 0), **left, color="w", fontsize=6)
    for ax, height in zip(axes[0], (1.5, 5.5), strict=True):
        ax.annotate("inside", (7e-4, height), color="w", fontweight="bold", va="center")
    fig.colorbar(mesh, ax=axes[0], label="share of starts")
    one, other = (example(ax, MODELS[m], at) for ax, m, at in zip(axes[1], MODELS, (PAPER, PRESET), strict=True))
    assert one[1] < 2 * one[0] and not other[1] < 10 * other[0]
    plotting.panel_letters(axes.flat)
    caption = f"""(a, b) Share of 20 random starts in which ICL comes first, is transient, and comes at least 10 times
    later or not at all once CIWL is blocked; d starts at scale 1, alpha = mu_icl = 0.1. Line: the law
    (`tm.theory.region`), which says of the cells on its left that most starts do so. It is right for
    {right["published"]:.0%} and {right["long_pathway"]:.0%} of the cells; saying of no cell that they do is right for
    {base["published"]:.0%} and {base["long_pathway"]:.0%}. (c, d) A run at the paper's point, where blocking CIWL does
    not delay ICL, and one at the point of (b), where it does."""
    plotting.finish(__file__, fig, caption)


if __name__ == "__main__":
    main()
