"""The paper's appendix: twelve starts at mu_icl = 0 (query and exemplar match exactly), with the competition term."""

import toymodel as tm
from toymodel import plotting

THRESHOLD = 1e-3
STEPS = 16_000


def main() -> None:
    model = tm.coopetition(alpha=0.1, mu_icl=0.0)
    runs = tm.descend(model, tm.paper_start(model, seeds=range(12)), steps=STEPS, first_below=THRESHOLD)
    measures = tm.measure(runs)
    persistent = measures.phase == "persistent ICL"
    assert (persistent | (measures.phase == "plateau")).all() and (persistent == runs.stopped.notnull()).all()

    fig, axes = plotting.new(3, 4, 7.0, 5.0, sharex=True)
    plotting.seeds(axes, runs, runs.stopped, measures.sel(mechanism="icl"))
    late = runs.loss.sel(time=slice(200, None))
    unstable = (late.diff("time") > 0).any("time")
    worst = float(late.diff("time").max())
    stuck = " and ".join(str(seed) for seed in runs.seed[~persistent].values)
    caption = f"""The starts of the paper's appendix at mu_icl = 0, where ICL can solve the task completely (alpha =
    {model.parameters["alpha"]:g}, descent with step 1, {STEPS:,} steps). The dotted line is where the loss is first
    below {THRESHOLD:g}, at which the paper stops; what comes after is pale. Losses of the first steps, which fall from
    the random start, may lie above the axis. In {int(persistent.sum())} of {runs.sizes["seed"]} runs ICL is learned and
    stays (blue band), and CIWL is never learned, as networks do whose query equals an exemplar of the context; seeds
    {stuck} stay on the plateau. After step 200 the loss rises at some steps in {int(unstable.sum())} runs, by up to
    {worst:.2g}: instabilities of the step size, which move the counts of steps with the last bit of the arithmetic (see
    reduction_agreement)."""
    plotting.finish(__file__, fig, caption)


if __name__ == "__main__":
    main()
