"""A window in time: CIWL alone is trained until t_switch, then the full loss; when can ICL still emerge?"""

import numpy as np

import toymodel as tm
from toymodel import plotting
from toymodel.sweeps import plots

STEPS = 24_000


def main() -> None:
    grid = dict(alpha=tm.log(1e-3, 1, 32), t_switch=np.round(np.geomspace(20, 10_000, 16)))
    act = "Change(until=t_switch, loss='ciwl')"
    runs = tm.sweep(tm.coopetition(), over=grid, seeds=range(16), steps=STEPS, start="random", interventions=act)
    emerged = (
        runs.emergence.sel(mechanism="icl", drop=True).notnull().mean("seed").rename("share of starts, ICL emerges")
    )
    usual = emerged.sel(alpha=slice(None, 0.1))
    early, late = usual.sel(t_switch=slice(None, 300)), usual.sel(t_switch=slice(9000, None))
    assert float(early.min()) > 0.8 and float(late.max()) < 0.25
    half = emerged.t_switch.where(emerged >= 0.5).max("t_switch").sel(alpha=slice(None, 0.1))
    assert float(half.max() / half.min()) < 3
    alone = tm.Change(loss=lambda icl, ciwl, cost: ciwl)
    only = tm.descend(tm.coopetition(), tm.random_start(tm.coopetition(), range(16)), STEPS, interventions=[alone])
    learned = float(tm.measure(only).emergence.sel(mechanism="ciwl").fillna(np.inf).median())
    assert 0.5 < float(half.median()) / learned < 2
    shares = plots.phase_shares(runs, "alpha", "t_switch")
    both = shares.sel(phase="both").sel(t_switch=slice(None, 300))
    assert (
        float(both.sel(alpha=1e-3, method="nearest").min()) > 0.8
        and float(both.sel(alpha=slice(0.01, None)).max()) < 0.3
    )

    fig, (left, right) = plotting.new(1, 2, 7.0, 3.3)
    plots.phases(left, runs, "alpha", "t_switch")
    plots.heat(right, emerged, "alpha", "t_switch", contours=[0.25, 0.5, 0.75], cmap="Blues", vmin=0, vmax=1)
    left.axhline(learned, color="k", ls=":")
    left.text(1e-3, 1.1 * learned, "CIWL learned in half of the starts", size=7)
    for panel in (left, right):
        panel.set_ylabel("end of training CIWL alone (steps)")
    plotting.panel_letters((left, right))
    caption = f"""Most frequent course (a) and share of 16 random starts in which in-context learning (ICL) emerges (b)
    when the loss of CIWL alone is trained until a time and the full loss from then on, against competition (alpha). ICL
    still emerges as long as CIWL has not been learned (dotted: in half of the starts it is by step
    {round(learned, -2):,.0f}), in half of the starts until about step {round(float(half.median()), -2):,.0f} for any
    alpha below 0.1, so the window closes by time and hardly by alpha; what alpha decides is whether ICL then lasts."""
    plotting.finish(__file__, fig, caption)


if __name__ == "__main__":
    main()
