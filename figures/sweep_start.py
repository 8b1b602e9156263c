"""The initial scale: ICL waits longest at both ends, on the plateau of small starts and under the decay of large."""

import numpy as np

import toymodel as tm
from toymodel import plotting
from toymodel.sweeps import plots

STEPS = 16_000


def main() -> None:
    grid = dict(scale=tm.log(0.05, 2, 30), target_scale_d=tm.log(0.5, 4, 24))
    runs = tm.sweep(tm.coopetition(), over=grid, seeds=range(12), steps=STEPS, start="random")
    emergence = runs.emergence.sel(mechanism="icl", drop=True)
    typical = emergence.fillna(np.inf).median("seed")
    typical = typical.where(np.isfinite(typical)).rename("emergence")
    best = typical.idxmin("scale")
    assert ((best > 0.2) & (best < 1.6)).all()
    slope = np.polyfit(np.log(typical.scale[:10]), np.log(typical.isel(target_scale_d=-1)[:10]), 1)[0]
    assert -1.2 < slope < -0.6
    diverged = plots.phase_shares(runs, "scale", "target_scale_d").sel(phase="diverged").min("target_scale_d") > 0.5
    edge = runs.scale.where(~diverged).max()
    assert diverged.sel(scale=slice(1.6, None)).all() and 1.2 < edge < 1.6

    fig, (left, right) = plotting.new(1, 2, 7.0, 3.3)
    plots.phases(left, runs, "scale", "target_scale_d")
    curve = {"scale from which ICL emerges soonest": (best.values, best.target_scale_d.values)}
    levels = [100, 300, 1e3, 3e3, 1e4]
    plots.heat(right, typical, "scale", "target_scale_d", logarithmic=True, contours=levels, lines=curve)
    plotting.panel_letters((left, right))
    caption = f"""Most frequent course of 12 random starts (a) and median time at which in-context learning (ICL)
    emerges (b; white: not within {STEPS:,} steps in half of them), against the scale of the initial values and of the
    target of d. ICL emerges soonest from a scale between {float(best.min()):.1f} and {float(best.max()):.1f}: smaller
    starts wait on the plateau, in inverse proportion to the scale, in larger ones random components first drive the
    shared vectors down, and above a scale of {float(edge):.1f} descent with the step size 1 diverges."""
    plotting.finish(__file__, fig, caption)


if __name__ == "__main__":
    main()
