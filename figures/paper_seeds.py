"""The paper's appendix: twelve starts at mu_icl = 0.1, with the competition term."""

import toymodel as tm
from toymodel import plotting

THRESHOLD = 1e-6
STEPS = 16_000


def main() -> None:
    model = tm.coopetition(alpha=0.1, mu_icl=0.1)
    runs = tm.descend(model, tm.paper_start(model, seeds=range(12)), steps=STEPS, first_below=THRESHOLD)
    measures = tm.measure(runs)
    transient = measures.phase == "transient ICL"
    assert (transient | (measures.phase == "plateau")).all() and (transient == runs.stopped.notnull()).all()
    first = measures.emergence.where(transient, drop=True)
    assert (first.sel(mechanism="icl") < first.sel(mechanism="ciwl")).all()

    icl = measures.sel(mechanism="icl")
    learned = runs.cost.where((runs.time >= icl.emergence) & (runs.time <= icl.end)).max("time")
    peak, last = (cost.where(transient, drop=True) for cost in (learned, runs.cost.isel(time=-1)))
    assert (last < 1e-3 * peak).all()

    fig, axes = plotting.new(3, 4, 7.0, 5.0, sharex=True)
    plotting.seeds(axes, runs, runs.stopped, icl)
    stuck = " and ".join(str(seed) for seed in runs.seed[~transient].values)
    bumps = measures.bump.sel(mechanism="ciwl").where(transient, drop=True)
    lifetimes = icl.lifetime.where(transient, drop=True)
    caption = f"""Twelve starts of the paper's appendix (alpha = {model.parameters["alpha"]:g}, mu_icl =
    {model.parameters["mu_icl"]:g}, descent with step 1, {STEPS:,} steps). The dotted line is where the loss is first
    below {THRESHOLD:g}, at which the paper stops; what comes after is pale. Losses of the first steps, which fall from
    the random start, may lie above the axis. In {int(transient.sum())} of {runs.sizes["seed"]} runs ICL is learned
    first, then CIWL, and ICL ends, {float(lifetimes.min()):,.0f} to {float(lifetimes.max()):,.0f} steps after it was
    learned (blue band); CIWL's loss rises by {float(bumps.min()):.2f} to {float(bumps.max()):.2f} meanwhile. Seeds
    {stuck} stay on the plateau. The competition term C reaches {float(peak.min()):.2f} to {float(peak.max()):.2f} while
    ICL is learned, and ends at {float(last.max()):.1e} or less."""
    plotting.finish(__file__, fig, caption)


if __name__ == "__main__":
    main()
