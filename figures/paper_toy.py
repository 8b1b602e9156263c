"""The paper's main toy figure: in-context learning appears and fades (seed 7, mu_icl = 0.1)."""

from pathlib import Path

import numpy as np
import xarray as xr

import toymodel as tm
from toymodel import plotting

THRESHOLD = 1e-6
AUTHORS = Path(__file__).parent.parent / "tests" / "data" / "toy_seed7.csv"


def main() -> None:
    model = tm.coopetition(alpha=0.1, mu_icl=0.1)
    run = tm.descend(model, tm.paper_start(model, seeds=7), steps=16_000, first_below=THRESHOLD)
    stop = float(run.stopped)
    run = run.sel(time=slice(0, stop))
    icl, ciwl = (tm.measure(run).sel(mechanism=m) for m in ("icl", "ciwl"))
    assert str(tm.measure(run).phase.values) == "transient ICL" and ciwl.lasts
    assert icl.emergence < ciwl.emergence < icl.end and ciwl.bump > 0 and icl.emergence < ciwl.bump_time < icl.end

    table = np.genfromtxt(plotting.uses(AUTHORS), delimiter=",", names=True)
    time = xr.DataArray(table["iteration"], dims="row")
    time = time[time <= stop]
    ours = [run[name].sel(time=time) for name in ("loss", "loss_icl", "loss_ciwl")]
    theirs = [table[name][: time.size] for name in ("loss", "loss_icl", "loss_ciwl")]
    error = max(float(abs(x - y).max()) for x, y in zip(ours, theirs, strict=True))
    assert error < 1e-5

    fig, (whole, zoom, small) = plotting.new(1, 3, 7.0, 2.5, width_ratios=(1.55, 1, 1))
    plotting.losses(whole, run)
    some = slice(None, None, time.size // 24)
    for y, colour in zip(theirs, ("loss", "icl", "ciwl"), strict=True):
        style = {"color": plotting.COLOURS[colour], "mfc": "white", "ms": 2.6, "mew": 0.7}
        whole.plot(time[some], y[some], "o", label="authors' solver" if colour == "loss" else None, **style)
    whole.axvspan(icl.emergence, icl.end, color=plotting.COLOURS["icl"], alpha=0.1, lw=0)
    middle = float(icl.emergence + icl.end) / 2
    whole.text(middle, 0.985, "ICL learned", ha="center", va="top", color=plotting.COLOURS["icl"], size=7,
               transform=whole.get_xaxis_transform())  # fmt: skip
    whole.set(xlim=(0, stop), ylim=(0, None))
    whole.legend(loc="upper left", bbox_to_anchor=(0.02, 1.02), handlelength=1.2)
    plotting.thousands(whole)

    near = run.sel(time=slice(float(icl.emergence) - 250, float(ciwl.emergence) + 250))
    plotting.losses(zoom, near, "loss_ciwl", "loss_icl")
    top = float(run.loss_ciwl.sel(time=ciwl.bump_time))
    zoom.annotate(f"bump, {float(ciwl.bump):.3f}", (float(ciwl.bump_time), top), (0.55, 0.93), fontsize=7,
                  textcoords="axes fraction", arrowprops={"arrowstyle": "-", "lw": 0.6}, va="center")  # fmt: skip
    zoom.set(xlim=(near.time[0], near.time[-1]), ylim=(0, 1.25 * top))
    plotting.thousands(zoom)

    plotting.losses(small, run, "loss", "loss_icl", "loss_ciwl", "cost")
    small.axhline(THRESHOLD, color=plotting.COLOURS["loss"], lw=0.6, ls=":")
    small.set(yscale="log", ylim=(THRESHOLD / 3, 3), xlim=(0, 1.02 * stop))
    rising = run.cost.sel(time=stop / 3, method="nearest")
    small.annotate("competition", (float(rising.time), float(rising)), (3, 0), textcoords="offset points",
                   color=plotting.COLOURS["cost"], size=7, va="center")  # fmt: skip
    plotting.thousands(small)
    plotting.panel_letters((whole, zoom, small))

    caption = f"""The minimal model of the paper (seed 7, alpha = {model.parameters["alpha"]:g}, mu_icl =
    {model.parameters["mu_icl"]:g}, mu_ciwl = {model.parameters["mu_ciwl"]:g}, descent with step 1, until the loss is
    below {THRESHOLD:g}, at step {stop:,.0f}). (a) The total loss and those of the two mechanisms; circles are the
    authors' own solver, which differs by at most {error:.1e}. ICL is learned (loss below half of its unlearned value)
    at step {float(icl.emergence):,.0f}, CIWL at {float(ciwl.emergence):,.0f}, and ICL is gone at
    {float(icl.end):,.0f}. (b) While ICL emerges, the loss of CIWL rises by {float(ciwl.bump):.3f}, up to step
    {float(ciwl.bump_time):,.0f}, as in networks, and only then falls. (c) The same run on a logarithmic scale, with
    the competition term C (dashed); the dotted line is the threshold."""
    plotting.finish(__file__, fig, caption)


if __name__ == "__main__":
    main()
