"""Phase portraits of the slow manifold on which ICL lives, and the fold at its end, with real trajectories on them."""

import numpy as np

import toymodel as tm
from toymodel import plotting
from toymodel.theory.slow_manifold import coexisting, end_of_coexistence, slow_flow

MODEL, SMALL = tm.coopetition(mu_ciwl=0.0), 1e-3
CASES = (  # mu_icl, window of bc, largest d, and (bc, d) of starts on the manifold
    (3e-3, (14, 90), 6, ((17, 4.5), (25, 5.5), (45, 0.1), (70, 0.1))),
    (0.1, (14, 66), 11, ((16, 9), (16, 5), (30, 0.2), (45, 0.2))),
)
FOLDS = {0.1: "light", 0.3: "icl", 1.0: "other"}  # alpha in the last panel, where mu_icl = SMALL; smaller: no room
ICL, CIWL = (np.prod([MODEL.target_norms[x] for x in letters]) for letters in ("abc", "dbc"))


def run(overlap, horizon, **parameters):
    """bc, d, the share of ICL's product and the times of a real run, which loses ICL in the end."""
    start, times = tm.aligned_start(MODEL, overlap=overlap), np.geomspace(1, horizon, 4000)
    runs = tm.flow(MODEL, start, horizon, times=times, method="LSODA", rtol=1e-8, **parameters)
    a, b, c, d = (runs.overlap.sel(vector=x).values for x in "abcd")
    assert (a * b * c)[-1] < 0.01 * ICL < 0.9 * ICL < (a * b * c).max()
    return b * c, d, a * b * c / ICL, times


def portrait(axes, mu, window, high, starts):
    """Slow flow, where d rests, and runs; returns the median difference of their speeds from the slow flow's."""
    p, d = np.meshgrid(np.linspace(*window, 150), np.linspace(0.01, high, 150))
    speeds, gaps = slow_flow(MODEL, p, d, mu_icl=mu), []
    axes.streamplot(p, d, *speeds, density=0.8, color=plotting.COLOURS["none"], linewidth=0.6, arrowsize=0.6)
    axes.contour(p, d, speeds[1], [0], colors=plotting.COLOURS["ciwl"], linestyles="--", linewidths=1.2)
    axes.plot([], [], "--", color=plotting.COLOURS["ciwl"], lw=1.2, label="dd/dt = 0")
    axes.plot(p[0], CIWL / p[0], color=plotting.COLOURS["cost"], lw=0.8, label="CIWL learned")
    placed = [({"a": ICL / side, "b": side**0.5, "c": side**0.5, "d": d}, "loss") for side, d in starts]
    for start, name in (*placed, (0.1, "icl")):
        p, d, share, times = run(start, 1e6, mu_icl=mu)
        use = (share > 0.9) & (np.cumsum(share < 0.9) <= np.argmax(share > 0.9))
        axes.plot(p[use], d[use], color=plotting.COLOURS[name], lw=1.1, zorder=3)
        for i, marker in ((0, "o"), (-1, "X")):
            axes.plot(p[use][i], d[use][i], marker, color=plotting.COLOURS[name], mec="white", mew=0.5, ms=5, zorder=4)
        real = np.array([np.gradient(x[use], times[use]) for x in (p, d)])
        slow = np.array(slow_flow(MODEL, p[use], d[use], mu_icl=mu))
        gaps.append(np.linalg.norm(real - slow, axis=0) / np.linalg.norm(slow, axis=0))
    axes.set(xlim=window, ylim=(0, high), xlabel="p = bc", ylabel="d")
    axes.set_title(f"alpha = {MODEL.parameters['alpha']:g}, mu_icl = {mu:g}", fontsize="small")
    return float(np.nanmedian(np.concatenate(gaps)))


def main() -> None:
    fig, axes = plotting.new(1, 3, 7.2, 2.8)
    gaps, misses = [portrait(panel, *case) for panel, case in zip(axes, CASES, strict=False)], []
    axes[1].legend(loc="upper right")
    for alpha, name in FOLDS.items():
        colour, given, missing = plotting.COLOURS[name], {"alpha": alpha, "mu_icl": SMALL}, np.geomspace(1e-5, 0.9, 999)
        branch, p_fold = coexisting(MODEL, missing, **given), end_of_coexistence(MODEL, **given)
        p, _, share, _ = run(0.1, 1e9, **given)
        axes[2].plot(p, share, color=colour, lw=2)
        for part, style in ((slice(top := int(np.nanargmax(branch)) + 1), "k-"), (slice(top - 1, None), "k:")):
            axes[2].plot(branch[part], 1 - missing[part], style, lw=0.8, zorder=4)
        axes[2].plot(p_fold, 1 - missing[top - 1], "s", color="white", mec="k", ms=4, zorder=5)
        axes[2].text(p[-1] + 4, 0.02, f"alpha = {alpha:g}", color=colour, rotation=90, fontsize="small")
        misses.append(abs(p[np.flatnonzero(share > 1 - missing[top - 1])[-1]] / p_fold - 1))
    assert max(misses) < 0.05 and max(gaps) < 0.1
    axes[2].set(xlabel="p = bc", ylabel="abc / S_icl", xlim=(0, 205))
    axes[2].set_title(f"mu_icl = {SMALL:g}", fontsize="small")
    plotting.panel_letters(axes)
    caption = f"""The slow manifold abc = S_icl on which ICL lives once it has emerged. (a, b) Slow flow (grey, where
    its theory holds), where it leaves d at rest (dashed, in (a) only), and real runs from a small start
    (blue) and from the manifold (black), each to the cross, where ICL has lost a tenth of its product; their speeds
    differ from the slow flow's by {gaps[0]:.1%} and {gaps[1]:.1%} (median). (c) With both learned, the equilibria of
    a and d at a given p (stable: solid; leading order) end in a fold (square, closed form), and real runs (coloured)
    lose ICL within {max(misses):.0%} of its p. Where alpha is much smaller there is no coexistence
    (derivations/lifetime.md)."""
    plotting.finish(__file__, fig, caption)


if __name__ == "__main__":
    main()
