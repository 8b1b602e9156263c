"""The bump in the loss of CIWL as ICL emerges: competition and mu_icl against each other."""

import toymodel as tm
from toymodel import plotting
from toymodel.sweeps import plots


def main() -> None:
    grid = dict(alpha=tm.log(1e-3, 1, 36), mu_icl=tm.log(1e-3, 1, 36))
    runs = tm.sweep(tm.coopetition(), over=grid, seeds=range(8), steps=8_000)
    bump = runs.bump.sel(mechanism="ciwl", drop=True).median("seed").rename("bump of the loss of CIWL")
    assert (bump.isel(mu_icl=-1) < 1e-6).all()
    low = bump.sel(mu_icl=slice(None, 0.02), alpha=slice(0.01, 0.2))
    assert (low.diff("mu_icl") < 0).all() and float(bump.isel(alpha=-1).max()) < 1e-3
    highest = bump.sel(mu_icl=slice(None, 0.04)).idxmax("alpha")
    low, high = float(highest.min()), float(highest.max())
    assert 0.03 < low < high < 0.3
    paper = float(bump.sel(alpha=0.1, mu_icl=0.1, method="nearest"))
    assert 0 < paper < 0.1 * float(bump.max())

    fig, (left, right) = plotting.new(1, 2, 7.0, 2.9, width_ratios=(1.2, 1))
    plots.heat(left, bump, "alpha", "mu_icl", cmap="Oranges")
    drawn = left.contour(bump.alpha, bump.mu_icl, bump.T, [0.01, 0.1, 0.3, 0.6], colors="k", linewidths=0.7)
    left.clabel(drawn, fontsize=6, manual=[(0.01, 0.2), (0.015, 0.045), (0.03, 0.005), (0.15, 0.0015)])
    left.plot(0.1, 0.1, "*", color="k", ms=9, mfc="w")
    for value, colour in zip((0.001, 0.01, 0.1), plotting.shades(3), strict=True):
        one = runs.bump.sel(mechanism="ciwl", drop=True).sel(mu_icl=value, method="nearest", drop=True)
        plots.slices(right, one, "alpha", color=colour, label=rf"$\mu_\mathrm{{ICL}}={value:g}$")
    right.set_ylabel("bump of the loss of CIWL")
    right.legend()
    plotting.panel_letters((left, right))
    caption = f"""Height of the bump in the loss of CIWL while in-context learning (ICL) emerges, before CIWL itself is
    learned: median of 8 of the paper's starts (a; star: the paper's values), and slices with quartiles (b). The bump
    grows as mu_icl falls, because an ICL that solves the task alone takes the drive from CIWL; for mu_icl below 0.04 it
    is highest where alpha is between {low:.2g} and {high:.2g}, and it is gone at alpha = 1."""
    plotting.finish(__file__, fig, caption)


if __name__ == "__main__":
    main()
