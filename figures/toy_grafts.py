"""Toy versions of the paper's grafts: states of a run that trained CIWL alone, taken at many times."""

import matplotlib
import numpy as np
import xarray as xr

import toymodel as tm
from toymodel import plotting

SEED, STEPS, ALONE = 7, 16_000, 80_000
SHARES = 2.0 ** np.arange(-4, 2.25, 0.5)  # of the time at which CIWL alone is learned
ICL_ALONE = tm.Change(loss=lambda icl, ciwl, cost: icl)
CIWL_ALONE = tm.Change(loss=lambda icl, ciwl, cost: ciwl)


def main() -> None:
    model = tm.coopetition(alpha=0.1, mu_icl=0.1)
    start = tm.paper_start(model, seeds=range(12))
    alone = tm.descend(model, start, ALONE, interventions=[CIWL_ALONE])
    learned = tm.measure(alone).emergence.sel(mechanism="ciwl", drop=True)
    when = learned * xr.DataArray(SHARES, dims="share", coords={"share": SHARES})
    taken = alone[["overlap", "residual", "target_norm"]].sel(time=when.round()).drop_vars(["time", "step"])
    given = [ICL_ALONE, tm.Clamp("bc", like=taken)]
    runs = [tm.descend(model, of, STEPS, every=5, interventions=acts) for of, acts in ((start, given), (taken, ()))]
    measured = [tm.measure(run) for run in runs]
    icl, ciwl = ([m.emergence.sel(mechanism=name) for m in measured] for name in ("icl", "ciwl"))
    works, none, full = icl[0].notnull().all("seed"), icl[0].isnull().all("seed"), icl[1].notnull().all("seed")
    opens, shut = float(works.share[works].min()), float(works.share[none].max())
    assert works.sel(share=slice(opens, None)).all() and none.sel(share=slice(0, shut)).all()
    early, late = float(full.share[full].min()), float(full.share[full].max())
    assert (
        not (icl[1].notnull() & (icl[1].share > late)).any() and ciwl[1].sel(share=slice(early, None)).notnull().all()
    )
    kept = measured[1].lasts.sel(mechanism="icl")
    lost, last = int((icl[1].notnull() & ~kept).sum()), float(icl[1].where(kept).min())
    assert last > 0.9 * STEPS  # those that are not lost were learned just before the end

    fig, axes = plotting.new(2, 2, 6.4, 4.2)
    names = ("ICL alone, b and c held at the state taken", "full training from the state taken")
    shades = matplotlib.colors.ListedColormap(plotting.shades(256))
    scale = matplotlib.cm.ScalarMappable(matplotlib.colors.LogNorm(SHARES[0], SHARES[-1]), shades)
    for column, name, run, first_icl, first_ciwl in zip(axes.T, names, runs, icl, ciwl, strict=True):
        curves, bars = column
        for share in SHARES:
            one = run.sel(seed=SEED, share=share).isel(time=slice(1, None))
            curves.plot(one.time, one.loss_icl / one.unlearned_icl, color=scale.to_rgba(share), lw=1)
        plotting.log_time(curves)
        curves.set(xlim=(None, STEPS), ylim=(0, 2), ylabel="ICL loss / unlearned loss", title=name)
        no_icl, no_ciwl, below = first_icl.isnull(), first_ciwl.isnull(), np.zeros(SHARES.size)
        groups = {"ICL": ~no_icl, "CIWL only": no_icl & ~no_ciwl, "neither": no_icl & no_ciwl}
        for (text, group), colour in zip(groups.items(), ("icl", "ciwl", "none"), strict=True):
            if (part := group.sum("seed").values).any():
                bars.bar(np.log2(SHARES), part, 0.42, below, label=text, color=plotting.COLOURS[colour])
            below += part
        bars.set(xlabel="state taken at (emergence of CIWL = 1)", ylabel="seeds", ylim=(0, 12))
        bars.set_xticks(range(-4, 3), ["1/16", "1/8", "1/4", "1/2", "1", "2", "4"])
        bars.legend(loc="lower center", bbox_to_anchor=(0.5, 0.98), ncols=3)
    bar = fig.colorbar(scale, ax=axes[0], label="state taken at")
    bar.set_ticks([1 / 16, 1 / 4, 1, 4], labels=["1/16", "1/4", "1", "4"])
    bar.minorticks_off()
    plotting.panel_letters(axes.flat)
    caption = f"""The paper's grafts of CIWL into networks, in the minimal model (alpha =
    {model.parameters["alpha"]:g}, mu_icl = {model.parameters["mu_icl"]:g}, {start.sizes["seed"]} seeds). CIWL alone
    is trained and its state taken at {SHARES.size} times, in units of the time at which CIWL is learned in that run.
    (a, c) The loss of ICL alone, with b and c held at the state taken. States up to {shut:.2g} never give ICL (within
    {STEPS:,} steps), and all from {opens:g} on do, within {float(icl[0].sel(share=slice(opens, None)).max()):.0f}
    steps. So an early second layer does not help and a later one does, as in networks; but in the model the window
    never closes again, since b and c of a run of CIWL alone stay where they are (in networks only a window of times
    works). (b, d) Full training from the state taken, as in networks: from all seeds of times {early:.2g} to {late:g}
    ICL still appears, and it is transient ({lost} of {int(icl[1].notnull().sum())} runs; the others learn it after
    step {last:,.0f} of {STEPS:,}); from later states it never does, for CIWL has left no loss that could drive it.
    (a, b) Seed {SEED}; (c, d) what is learned at any time, all seeds."""
    plotting.finish(__file__, fig, caption)


if __name__ == "__main__":
    main()
