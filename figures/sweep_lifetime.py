"""How long in-context learning lasts: not a monotonic function of competition."""

import numpy as np

import toymodel as tm
from toymodel import plotting
from toymodel.sweeps import plots

STEPS = 200_000


def main() -> None:
    grid = dict(alpha=tm.log(1e-3, 1, 32), mu_icl=tm.log(3e-3, 1, 32))
    runs = tm.sweep(tm.coopetition(), over=grid, steps=STEPS, start="aligned", fixed={"scale": 0.3})
    icl = runs.sel(mechanism="icl")
    ended = ~icl.lasts
    life = icl.lifetime.where(ended).rename("lifetime")
    soonest = life.idxmin("alpha")
    inside = soonest.where((soonest > 2e-3) & (soonest < 0.5), drop=True)
    slope = np.polyfit(np.log(inside.mu_icl[:8]), np.log(inside[:8]), 1)[0]
    assert (np.diff(inside) >= 0).all() and 0.9 < slope < 1.1
    small, large = life.sel(mu_icl=[0.01, 1], method="nearest").transpose("mu_icl", "alpha").values
    assert -1.15 < np.polyfit(np.log(runs.alpha), np.log(large), 1)[0] < -0.85
    assert small[-1] > 2.5 * np.nanmin(small) and small[0] > 3 * np.nanmin(small)

    fig, (left, right) = plotting.new(1, 2, 7.0, 3.0, width_ratios=(1.2, 1))
    levels = [300, 1e3, 3e3, 1e4, 3e4, 1e5]
    curve = {"alpha that ends ICL soonest": (inside.values, inside.mu_icl.values)}
    plots.heat(left, life, "alpha", "mu_icl", logarithmic=True, contours=levels, lines=curve, cmap="viridis")
    for value, colour in zip((0.003, 0.01, 0.1, 1), ("light", "icl", "shared", "ciwl"), strict=True):
        one = life.sel(mu_icl=value, method="nearest", drop=True)
        plots.slices(right, one, "alpha", color=plotting.COLOURS[colour], label=rf"$\mu_\mathrm{{ICL}}={value:g}$")
    right.set_yscale("log")
    right.legend()
    plotting.panel_letters((left, right))
    caption = f"""Lifetime of in-context learning (ICL) from a small aligned start, over competition (alpha) and the
    loss that ICL cannot remove (mu_icl), and slices of it (white: ICL is still learned after {STEPS:,} steps).
    Where mu_icl is large the lifetime falls as 1/alpha, but where it is small more competition first
    shortens and then prolongs it, because it keeps CIWL from starting: the alpha that ends ICL soonest
    (line) grows in proportion to mu_icl (measured exponent {slope:.2f})."""
    plotting.finish(__file__, fig, caption)


if __name__ == "__main__":
    main()
