"""The reduced model against all entries of the vectors, and descent against gradient flow: agreement and its limits."""

import numpy as np
import xarray as xr

import toymodel as tm
from toymodel import plotting

SEED, STEPS, EVERY = 8, 4_000, 5
RESOLUTION = np.finfo(float).epsneg
SMALLER = np.array([1, 2, 4, 8, 16, 32])
FULL, FLOW, REDUCED, TWIN = (plotting.COLOURS[name] for name in ("light", "other", "loss", "shared"))


def distance(one: xr.Dataset, other: xr.Dataset) -> xr.DataArray:
    """The relative difference of the losses at the times that `other` records, at least the resolution of float64."""
    return abs(one.loss.sel(time=other.time.values).values / other.loss - 1).clip(RESOLUTION)


def main() -> None:
    model = tm.coopetition(alpha=0.1)
    vectors = tm.paper_vectors(model, SEED)
    start = tm.from_vectors(model, vectors)
    twin = start.assign(overlap=start.overlap * (1 + 1e-15))
    fig, axes = plotting.new(2, 3, 7.0, 4.2)
    exact, coarse, apart, orders, spike = {}, {}, {}, {}, {}
    for row, mu in zip(axes, (0.1, 0.0), strict=True):
        full = tm.descend_vectors(model, vectors, STEPS, every=EVERY, mu_icl=mu)
        reduced, other = (tm.descend(model, s, STEPS, mu_icl=mu) for s in (start, twin))
        flow = tm.flow(model, start, t=STEPS, times=full.time.values, method="LSODA", mu_icl=mu)
        spike[mu] = float(tm.first_true(reduced.loss.diff("time").sel(time=slice(200, None)) > 0))
        calm = slice(100, min(STEPS, np.nan_to_num(spike[mu], nan=np.inf) - 200))
        exact[mu], coarse[mu] = distance(reduced, full), distance(reduced, flow)
        apart[mu] = distance(other, reduced.sel(time=full.time))
        slower = [tm.descend(model, start, STEPS * k, lr=1 / k, every=EVERY * k, mu_icl=mu) for k in SMALLER.tolist()]
        orders[mu] = [float(distance(run, flow).sel(time=calm).max()) for run in slower]
        exact[mu].attrs["calm"] = float(exact[mu].sel(time=slice(0, calm.stop)).max())
        assert exact[mu].attrs["calm"] < 1e-12
        assert abs(np.polyfit(np.log(SMALLER[2:]), np.log(orders[mu][2:]), 1)[0] + 1) < 0.05

        losses, differences, steps = row
        losses.plot(full.time[1:], full.loss[1:], color=FULL, lw=3.5, label="all entries, step 1")
        losses.plot(reduced.time[1:], reduced.loss[1:], color=REDUCED, lw=0.9, label="reduced, step 1")
        losses.plot(flow.time[1:], flow.loss[1:], "--", color=FLOW, label="gradient flow")
        losses.set(yscale="log", ylabel=f"total loss (mu_icl = {mu:g})")
        differences.plot(coarse[mu].time[1:], coarse[mu][1:], color=FLOW, label="step 1 to flow")
        differences.plot(apart[mu].time, apart[mu], color=TWIN, lw=0.7, label="start moved by 1e-15")
        differences.plot(exact[mu].time, exact[mu], color=FULL, label="reduced to all entries")
        differences.set(yscale="log", ylim=(RESOLUTION / 2, 100), ylabel="relative difference of loss")
        steps.plot(1 / SMALLER, orders[mu], "o", color=FLOW, ms=3.5, label="descent to flow")
        steps.plot(1 / SMALLER, orders[mu][-1] * SMALLER[-1] / SMALLER, ":", color=REDUCED, label="slope 1")
        steps.set(
            xscale="log", yscale="log", xlabel="step size", ylabel="largest relative difference", ylim=(1e-3, 0.3)
        )
        for panel in (losses, differences):
            panel.set_xlim(0, STEPS)
            plotting.thousands(panel)
            panel.axvline(spike[mu], color=plotting.COLOURS["cost"], lw=0.7, ls=":")
    worst, last = float(coarse[0.1][1:].max()), float(coarse[0.0].isel(time=-1))
    assert np.isnan(spike[0.1]) and worst < 0.1 and float(exact[0.0].max()) > 0.1 and float(apart[0.0].max()) > 0.1
    for panel in axes[0]:
        panel.legend(loc="lower left", bbox_to_anchor=(0, 1))
    plotting.panel_letters(axes.flat)
    caption = f"""Where the reduced model, descent on all entries of the vectors, and gradient flow agree, and where
    they part (seed {SEED}, float64). Upper row, mu_icl = 0.1: (a) all three are the same to the eye. (b) The reduction
    is exact: over {STEPS:,} steps it differs from all entries by at most {exact[0.1].attrs["calm"]:.0e}, relative
    (equal numbers are drawn at the resolution of float64, {RESOLUTION:.0e}). Descent with step 1 differs from the flow
    (LSODA) by at most {worst:.2f}, at t = {float(coarse[0.1][1:].idxmax()):.0f}. (c) That difference (from t = 100 on)
    falls in proportion to the step size. Lower row, mu_icl = 0: (d) late descent with step 1 becomes unstable, the loss
    first rises at step {spike[0.0]:,.0f} (dotted line), and the flow has no such spikes. (e) Until 200 steps before
    that the reduction is exact to {exact[0.0].attrs["calm"]:.0e}; then the instability multiplies rounding errors, as
    it does the distance of two starts that differ by 1e-15, and descent and flow end {last:.2f} apart. (What all
    entries do after the first spike depends on the last bit, and so on the machine.) (f) Before the spikes the
    difference to the flow is of first order there, too."""
    plotting.finish(__file__, fig, caption)


if __name__ == "__main__":
    main()
