"""Phase diagram of the paper's model in competition (alpha) and in what ICL cannot learn (mu_icl)."""

import numpy as np

import toymodel as tm
from toymodel import plotting
from toymodel.sweeps import plots

PAPER = {"alpha": 0.1, "mu_icl": 0.1}


def main() -> None:
    grid = dict(alpha=tm.log(1e-3, 1, 40), mu_icl=tm.log(1e-3, 1, 40))
    runs = tm.sweep(tm.coopetition(), over=grid, seeds=range(12), steps=16_000)
    shares = plots.phase_shares(runs, "alpha", "mu_icl")
    transient = shares.sel(phase="transient ICL")

    def at(phase, **where):
        return float(shares.sel(phase=phase).sel(where, method="nearest"))

    assert at("transient ICL", **PAPER) >= 10 / 12 and at("plateau", **PAPER) >= 1 / 12
    assert at("persistent ICL", alpha=1e-3, mu_icl=1e-3) == 1
    assert at("both", alpha=1e-3, mu_icl=1) >= 11 / 12
    assert at("CIWL only", alpha=1, mu_icl=1) > 0.5
    lasting = shares.sel(phase=["persistent ICL", "both"]).sum("phase")
    assert (
        float(lasting.sel(alpha=slice(None, 2e-3)).min()) > 0.8
        and float(lasting.sel(alpha=0.1, mu_icl=0.002, method="nearest")) > 0.8
    )

    fig, (left, right) = plotting.new(1, 2, 7.0, 3.3)
    plots.phases(left, runs, "alpha", "mu_icl")
    plots.heat(right, transient.rename("share of starts"), "alpha", "mu_icl", contours=[0.5], cmap="Blues")
    for panel in (left, right):
        panel.plot(PAPER["alpha"], PAPER["mu_icl"], "*", color="k", ms=9, mfc="w")
    plotting.panel_letters((left, right))
    share = int(np.round(100 * float((transient >= 0.5).mean())))
    caption = f"""Most frequent course of 12 of the paper's random starts in 16,000 steps of gradient descent (a), and
    the share of them in which in-context learning (ICL) emerges and fades (b), against competition (alpha) and against
    the loss that ICL cannot remove (mu_icl); the star marks the paper's values. Transience in at least half of the
    starts (line in b) fills a wedge of {share} % of this plane: with less competition or smaller mu_icl ICL is still
    learned at the end, and with alpha near 1 CIWL often wins before ICL can emerge."""
    plotting.finish(__file__, fig, caption)


if __name__ == "__main__":
    main()
