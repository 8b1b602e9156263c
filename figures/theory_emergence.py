"""Predicted and measured emergence of ICL, and the growth rates of the plateau with and without CIWL.

The times are those of benchmarks/theory_emergence.py (figures/data/theory_emergence.nc).
"""

from pathlib import Path

import numpy as np
import xarray as xr

import toymodel as tm
from toymodel import plotting

DATA = Path(__file__).parent / "data" / "theory_emergence.nc"
ENTRIES, SHARED = (5, 10, 20, 40, 80, 160), 0.5
HELD = tm.Clamp("d", overlap=0, residual=0)


def score(found):
    """R^2 of log time and relative errors of the runs that emerge and are predicted to."""
    both = (found.measured.notnull() & found.predicted.notnull()).values
    x, y = np.log(found.measured.values[both]), np.log(found.predicted.values[both])
    return 1 - np.sum((x - y) ** 2) / np.sum((x - x.mean()) ** 2), np.abs(np.exp(y - x) - 1), both


def growth(entries, *acts):
    """The measured rate at which c grows next to b = SHARED without cost, and the formulas."""
    model = tm.coopetition(alpha=0.0, dims=(20, 20, 20, entries))
    small = {"a": 1e-4, "b": SHARED, "c": 1e-4, "d": 0.0 if acts else 1e-4}
    start = tm.aligned_start(model, overlap=small)
    formulas = tm.growth(model, start)
    rate = float(formulas["alone" if acts else "together"])
    run = tm.descend(model, start, int(60 / rate), lr=0.1, every=int(1 / rate), interventions=acts)
    late = run.overlap.sel(vector="c", time=slice(4 / rate, 6 / rate))
    return float(np.polyfit(late.time, np.log(late), 1)[0]), rate


def main() -> None:
    times = xr.load_dataset(plotting.uses(DATA), engine="h5netcdf")
    rates = {name: np.array([growth(n, *acts) for n in ENTRIES]) for name, acts in (("on", ()), ("off", (HELD,)))}
    off = max(float(np.abs(found / formula - 1).max()) for found, formula in (r.T for r in rates.values()))
    assert off < 0.02

    fig, axes = plotting.new(1, 3, 7.2, 2.6)
    texts = []
    kinds = {"standard": "standard normal starts", "large": "starts scaled by 2"}
    for ax, (kind, name) in zip(axes, kinds.items(), strict=False):
        found = times.sel(kind=kind)
        square, error, both = score(found)
        assert square > 0.998 and np.median(error) < 0.015
        ax.axline((1e3, 1e3), slope=1, color=plotting.COLOURS["loss"], lw=0.7, ls=":")
        style = {"ms": 1.5, "color": plotting.COLOURS["icl"], "rasterized": True}
        ax.plot(found.predicted[both], found.measured[both], ".", **style)
        ax.set(xscale="log", yscale="log", xlabel="predicted time", ylabel="measured time of emergence")
        ax.set(title=name, xlim=(20, 5e4), ylim=(20, 5e4))
        texts.append(f"R² {square:.4f}, median error {np.median(error):.1%}, of {both.sum():,} runs ({name})")
    for name, colour, label in (("on", "shared", r"$B\sqrt{k_1^2+k_2^2}$"), ("off", "icl", r"$Bk_1$, CIWL blocked")):
        axes[2].plot(ENTRIES, 1e3 * rates[name][:, 1], color=plotting.COLOURS[colour], label=label)
        axes[2].plot(ENTRIES, 1e3 * rates[name][:, 0], "o", ms=4, color=plotting.COLOURS[colour])
    axes[2].set(xscale="log", xlabel="entries of d", ylabel="growth rate of c (1e-3 / step)", ylim=(0, None))
    axes[2].legend(loc="upper right")
    plotting.panel_letters(axes)
    caption = f"""(a, b) The time at which ICL emerges in the published model, predicted from the start alone
    (`tm.theory.emergence_time`: the weighted sum of the losses, to first order in what is learned) and measured in
    descent: 2,000 random starts and parameters each, alpha 0.001..0.3, mu_icl 0.001..1, d of 5..200 entries.
    {"; ".join(texts)}. (c) Rate at which c
    grows next to b = {SHARED:g} with a, d small: formulas (lines) and descent (points), within {off:.1%}."""
    plotting.finish(__file__, fig, caption)


if __name__ == "__main__":
    main()
