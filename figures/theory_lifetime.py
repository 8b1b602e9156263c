"""The lifetime of ICL: collapse on the law of its two outer regimes, and the whole prediction against measurement."""

import numpy as np

import toymodel as tm
from toymodel import plotting
from toymodel.theory.soonest import prefactors

MODEL = tm.coopetition(mu_ciwl=0.0)
WITHIN = 0.2  # of the law, in the outer regimes


def main() -> None:
    start = tm.aligned_start(MODEL, overlap=0.1)
    grid = dict(alpha=list(np.geomspace(3e-3, 0.3, 9)), mu_icl=list(np.geomspace(1e-4, 1, 9)))
    predicted = tm.theory.lifetime(MODEL, start, **grid)
    horizon = 5e3 + 3 * float(predicted.lifetime.max())
    times = np.geomspace(300, horizon, 3000)
    runs = tm.flow(MODEL, start, horizon, times=times, method="LSODA", rtol=1e-7, **grid)
    measured = tm.measure(runs).lifetime.sel(mechanism="icl", drop=True)
    error = abs(predicted.lifetime / measured - 1)
    median, most = float(error.median()), float(error.quantile(0.95))
    assert median < 0.05 and most < 0.15

    law, small = prefactors(MODEL), 1e-8
    prefactor = tm.theory.lifetime(MODEL, start, alpha=small, mu_icl=grid["mu_icl"]).decay * small  # C, for each mu_icl
    middle = measured.mu_icl * np.sqrt(prefactor / law["drift"])  # the alpha at which drift is as long as decay
    least = 2 * np.sqrt(law["drift"] * prefactor) / measured.mu_icl
    x, y = measured.alpha / middle, measured / least
    off = abs(y / ((x + 1 / x) / 2) - 1).where((x < 0.03) | (x > 100))
    assert float(off.max()) < WITHIN

    fig, (left, right) = plotting.new(1, 2, 7.0, 3.1)
    shades = np.broadcast_to(np.log10(measured.mu_icl), measured.transpose("alpha", "mu_icl").shape)
    for axes, across, up in ((left, x, y), (right, predicted.lifetime, measured)):
        points = axes.scatter(
            *(v.transpose("alpha", "mu_icl") for v in (across, up)), c=shades, cmap="viridis", s=14, linewidths=0
        )
        axes.set(xscale="log", yscale="log")
    line = np.geomspace(float(x.min()), float(x.max()), 200)
    left.plot(line, (line + 1 / line) / 2, color="k", lw=1, label="drift + decay: (x + 1/x) / 2")
    left.set(xlabel="x = alpha / (mu_icl sqrt(C / A))", ylabel="lifetime / (2 sqrt(A C) / mu_icl)")
    left.legend(loc="upper center")
    ends = [float(measured.min()), float(measured.max())]
    right.plot(ends, ends, color="k", lw=1)
    right.set(xlabel="predicted lifetime (four stages)", ylabel="measured lifetime of ICL")
    fig.colorbar(points, ax=right, label="log10 mu_icl")
    plotting.panel_letters((left, right))
    caption = f"""Lifetime of in-context learning in gradient flow, {error.size} runs from a small aligned start (alpha
    3e-3 to 0.3, mu_icl 1e-4 to 1). (a) Scaled by the two outer regimes, drift A alpha / mu_icl^2 and decay C / alpha,
    with the C of the predicted decay for small alpha ({float(prefactor.min()):.0f} to {float(prefactor.max()):.0f},
    depending on mu_icl): for x < 0.03 and x > 100 all runs are within {float(off.max()):.0%} of one curve; between them
    CIWL has to be learned, which the curve does not know. (b) With the stages of relaxation and of coexistence, which
    ends at a fold of the slow manifold, the prediction has a median error of {median:.1%} (95th percentile {most:.1%}).
    """
    plotting.finish(__file__, fig, caption)


if __name__ == "__main__":
    main()
