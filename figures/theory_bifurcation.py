"""Equilibria of the published model with weight decay: branches, folds, and where real runs end."""

import numpy as np
import xarray as xr

import toymodel as tm
from toymodel import plotting

CASES = ((0.003, 1e-5), (0.1, 1e-4))  # mu_icl and the smallest rate of decay
SHARES = {"icl": "abc", "ciwl": "dbc"}
STARTS, RATES, LARGEST, NAMES = 30, 12, 0.03, ("ICL", "CIWL", "both", "nothing")


def share(points: xr.Dataset, model: tm.Model, mechanism: str) -> xr.DataArray:
    """What is learned of the target's product."""
    norms = xr.DataArray(list(model.target_norms.values()), dims="vector", coords={"vector": list(model.vectors)})
    return (points.overlap / norms).sel(vector=list(SHARES[mechanism])).prod("vector")


def ends(model: tm.Model, least: float) -> xr.Dataset:
    """The ends, at 12 / least, of descent for each rate of decay: from normal starts, and last from CIWL."""
    draw = np.random.default_rng(0)
    values = {x: draw.standard_normal((STARTS, n)) for x, n in model.dims.items()}
    overlap = np.stack([[*v[:, 0], 0.3 if x == "a" else 6.3] for x, v in values.items()], -1)
    residual = np.stack([[*np.linalg.norm(v[:, 1:], axis=1), 0] for v in values.values()], -1)
    given = {"overlap": (("start", "vector"), overlap), "residual": (("start", "vector"), residual)}
    start = tm.aligned_start(model).drop_vars(list(given)).assign(given)
    steps, rates = round(12 / least / 4), np.geomspace(least, LARGEST, RATES)
    return tm.descend(model, start, steps, lr=4.0, every=steps, decay=rates).isel(time=-1)


def main() -> None:
    fig, axes = plotting.new(2, 3, 7.2, 4.4, sharex="row")
    gaps, both, alone = [], [], []
    for row, (mu, least) in zip(axes, CASES, strict=True):
        model = tm.theory.with_weight_decay(tm.coopetition(mu_icl=mu), 6e-3)
        points = tm.theory.fixed_points(model, tm.aligned_start(model, overlap=dict(a=4, b=4, c=4, d=0.5)), flow_time=0)
        curve = tm.theory.branch(model, points.isel(point=0), "decay", (least / 2, 0.1), log=True, step=0.03)
        stable, folds = curve.stability == "stable", curve.isel(point=np.flatnonzero(curve.kind == "fold"))
        dotted = list(
            map(float, tm.theory.decay_thresholds(tm.coopetition(mu_icl=mu)).values())
        )  # NaN: ICL has no fold
        runs = ends(model, least)
        for ax, mechanism in zip(row, SHARES, strict=False):
            colour, learned = plotting.COLOURS[mechanism], share(curve, model, mechanism)
            ax.plot(curve.decay, learned, "--", curve.decay, learned.where(stable), "-", color=colour)
            ax.plot(folds.decay, share(folds, model, mechanism), "s", color="white", mec=colour, ms=4, zorder=4)
            ax.axhline(0, color=plotting.COLOURS["none"], lw=1.8, zorder=0)
            ax.plot(runs.decay, share(runs, model, mechanism)[:-1].T, "ko", ms=1.8, zorder=5)
            ax.plot(runs.decay, share(runs, model, mechanism)[-1], "ko", mfc="none", ms=5, mew=0.7, zorder=5)
            ax.set(xscale="log", ylabel=f"{plotting.NAMES[mechanism]} made, mu_icl = {mu:g}", ylim=(-0.07, 1.1))
            ax.vlines(dotted, *ax.get_ylim(), color=plotting.COLOURS["cost"], lw=0.7, ls=":")
        for one in [runs.isel(decay=i, start=k) for i in range(RATES) for k in (0, 1, -1)]:
            found = tm.theory.fixed_points(model, one, flow_time=0, decay=float(one.decay)).isel(point=0)
            gaps.append(float(abs(found.overlap - one.overlap).max() + one.residual.max()))
            assert found.stability == "stable" and gaps[-1] < 0.02
        icl, ciwl = (runs[f"loss_{m}"] < runs[f"unlearned_{m}"] / 2 for m in SHARES)
        kinds = {"icl": icl & ~ciwl, "ciwl": ciwl & ~icl, "shared": icl & ciwl, "none": ~icl & ~ciwl}
        parts = {plotting.COLOURS[k]: kind[:-1].mean("start") for k, kind in kinds.items()}
        row[2].stackplot(runs.decay, *parts.values(), colors=list(parts), labels=NAMES, step="mid")
        row[2].set(xscale="log", ylabel="share of random starts", ylim=(0, 1))
        both.append(int((kinds["icl"].any("start") & kinds["ciwl"].any("start")).sum()))
        alone.append(float(kinds["icl"][:-1].mean("start").max()))
    assert both[0] >= 3 and both[1] == 0
    fig.supxlabel("rate of weight decay", fontsize="medium")
    axes[0, 2].legend(loc="upper right", frameon=True, facecolor="white")
    plotting.panel_letters(axes.flat)
    caption = f"""Weight decay makes true fixed points of the published model (alpha = 0.1). (a, b, d, e) Share of the
    targets' products at equilibria: stable (solid; grey: nothing learned), saddles (dashed), folds (squares; dotted:
    closed forms); ends of descent from {STARTS} normal starts (dots) and from CIWL (circles), those checked (three a
    rate) within {max(gaps):.0e} of a stable point. At mu_icl = 0.003 the start decides which strategy stays, at
    {both[0]} of {RATES} rates; at the paper's 0.1 there is no lambda_icl, and ICL is stable at large rates. (c, f) Ends
    of the normal starts at the {RATES} rates: ICL alone in up to {alone[0]:.0%} (c) and {alone[1]:.0%} (f)."""
    plotting.finish(__file__, fig, caption)


if __name__ == "__main__":
    main()
