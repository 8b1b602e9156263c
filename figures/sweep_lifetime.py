"""How long in-context learning lasts: not a monotonic function of competition."""

import numpy as np

import toymodel as tm
from toymodel import plotting
from toymodel.sweeps import plots

MODEL, SCALE, STEPS = tm.coopetition(), 0.3, 200_000


def main() -> None:
    grid = dict(alpha=tm.log(1e-3, 1, 32), mu_icl=tm.log(3e-3, 1, 32))
    runs = tm.sweep(MODEL, over=grid, steps=STEPS, start="aligned", fixed={"scale": SCALE})
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

    theory = tm.theory.lifetime(
        MODEL, tm.aligned_start(MODEL, overlap=SCALE), alpha=runs.alpha, mu_icl=runs.mu_icl
    ).lifetime
    error = abs(theory / life - 1)
    assert float(error.median()) < 0.05 and float(error.quantile(0.95)) < 0.2
    predicted = theory.idxmin("alpha").sel(mu_icl=inside.mu_icl)
    assert float(abs(np.log(predicted / inside)).max()) < np.log(1.5)

    fig, (left, right) = plotting.new(1, 2, 7.0, 3.0, width_ratios=(1.2, 1))
    levels = [300, 1e3, 3e3, 1e4, 3e4, 1e5]
    plots.heat(left, life, "alpha", "mu_icl", logarithmic=True, contours=levels)
    left.plot(inside, inside.mu_icl, "o", color="w", mec="k", mew=0.7, ms=3.5, label="alpha that ends ICL soonest")
    left.plot(predicted, inside.mu_icl, "k+", mew=0.8, label="predicted")
    left.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=2)
    for value, colour in zip((0.003, 0.01, 0.1, 1), plotting.shades(4), strict=True):
        one, two = (times.sel(mu_icl=value, method="nearest", drop=True) for times in (life, theory))
        plots.slices(right, one, "alpha", color=colour, label=rf"$\mu_\mathrm{{ICL}}={value:g}$")
        right.plot(two.alpha, two, "--", color="k", lw=0.8, label="predicted" if value == 1 else None)
    right.set_yscale("log")
    right.legend()
    plotting.panel_letters((left, right))
    caption = f"""Lifetime of in-context learning (ICL) from a small aligned start, over competition (alpha) and the
    loss that ICL cannot remove (mu_icl), and slices of it (white: ICL is still learned after {STEPS:,} steps). Where
    mu_icl is large the lifetime falls as 1/alpha, but where it is small more competition first shortens and then
    prolongs it, because it keeps CIWL from starting: the alpha that ends ICL soonest (points) grows in proportion to
    mu_icl (measured exponent {slope:.2f}). The theory (`tm.theory.lifetime`; crosses, dashed) has a median error of
    {float(error.median()):.0%} (95th percentile {float(error.quantile(0.95)):.0%})."""
    plotting.finish(__file__, fig, caption)


if __name__ == "__main__":
    main()
