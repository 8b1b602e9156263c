"""Everything that the paper reports of networks, in one model: a pathway of ICL that is one vector longer."""

import toymodel as tm
from toymodel import plotting

SEEDS, LR, TIME, BLOCKED = range(32), 0.25, 8_000, 100_000
TAKEN = (30, 100, 300, 1000, 3000)  # times at which a CIWL-only run is taken
HELD, ICL_DATA, CIWL_DATA = (
    tm.Clamp("d", overlap=0, residual=0),
    tm.Change(loss=lambda icl, ciwl, cost: icl),
    tm.Change(loss=lambda icl, ciwl, cost: ciwl),
)


def run(start, time, *acts, every=10, **parameters):
    return tm.descend(
        tm.long_pathway(), start, int(time / LR), lr=LR, every=int(every / LR), interventions=acts, **parameters
    )


def of_icl(runs, name="emergence"):
    return tm.measure(runs)[name].sel(mechanism="icl", drop=True)


def draw(axes, runs, mechanism, **style):
    style = {"color": plotting.COLOURS[mechanism], "label": plotting.NAMES[mechanism], **style}
    axes.plot(runs.time[1:], (runs[f"loss_{mechanism}"] / runs[f"unlearned_{mechanism}"])[1:], **style)


def main() -> None:
    start = tm.random_start(tm.long_pathway(), SEEDS, **tm.LONG_PATHWAY_START)
    full, matched, charged = run(start, TIME), run(start, TIME, mu_icl=0.0), run(start, TIME, alpha=1.0, mu_icl=0.01)
    blocked, from_data = (run(start, BLOCKED, act, every=200) for act in (HELD, ICL_DATA))
    given = run(start, TIME, ICL_DATA, tm.Clamp("bc", like=tm.state_at(full, TIME)), every=2)
    taken = tm.state_at(run(start, TIME, CIWL_DATA), TAKEN)
    later, grafted = run(taken, TIME, every=20), run(start, TIME, ICL_DATA, tm.Clamp("bc", like=taken), every=20)

    first, alone, data = of_icl(full), of_icl(blocked), of_icl(from_data)
    transient, lasts = (tm.measure(full).phase == "transient ICL").mean(), of_icl(matched, "lasts").mean()
    wait = (~(alone < 10 * first) & ~(data < 10 * first)).mean()
    after, grafted = (of_icl(runs).notnull().mean("seed") for runs in (later, grafted))
    bump = tm.measure(charged).bump.sel(mechanism="ciwl") / charged.unlearned_ciwl
    assert min(transient, lasts, wait) >= 0.95 and (of_icl(given) < first / 5).all() and (bump > 0.001).mean() > 0.5
    assert after[0] > 0.9 > 0.1 > after[-1] and grafted[0] < 0.1 < 0.9 < grafted[-1]

    fig, ((a, b, c), (d, e, f)) = plotting.new(2, 3, 7.2, 4.6)
    for axes, runs, seed in ((a, full, 0), (e, matched, 0), (f, charged, int(bump.idxmax("seed")))):
        draw(axes, runs.sel(seed=seed), "icl")
        draw(axes, runs.sel(seed=seed), "ciwl")
    for runs, name, colour, dash in (
        (full, "full training", "icl", "-"),
        (blocked, "CIWL blocked", "ciwl", "-"),
        (from_data, "ICL-only data", "loss", ":"),
        (given, "and b, c given", "shared", "-"),
    ):
        draw(b, runs.sel(seed=0), "icl", color=plotting.COLOURS[colour], ls=dash)
        share = (runs.loss_icl < runs.unlearned_icl / 2).cumsum("time").clip(max=1).mean("seed")[1:]
        c.plot(share.time, share, dash, label=name, color=plotting.COLOURS[colour])
    d.plot(TAKEN, after, "o-", color=plotting.COLOURS["icl"], label="full training from it")
    d.plot(TAKEN, grafted, "s--", color=plotting.COLOURS["shared"], label="its b and c, ICL-only data")
    d.set(xscale="log", ylim=(-0.05, 1.75), yticks=(0, 0.5, 1), xlabel="time of CIWL-only run", ylabel="share with ICL")
    for axes in (a, c, d):
        axes.legend(loc="upper right" if axes is c else "best")
    for axes, left, top in ((a, 300, 1.1), (b, 3, 1.1), (c, 3, 1.75), (e, 300, 1.1), (f, 300, 1.1)):
        plotting.log_time(axes, left)
        axes.set(xlabel="time", ylabel="share with ICL" if axes is c else "loss / unlearned loss")
        axes.set(ylim=(-0.05, top), yticks=(0, 0.5, 1))
    plotting.panel_letters((a, b, c, d, e, f))
    caption = f"""`long_pathway` (icl = a x e x b x c), {len(SEEDS)} starts. (a) ICL comes first, CIWL replaces it: in
    {float(transient):.0%} of the starts. (b, c) With CIWL blocked (d held at zero), or on ICL-only data (its loss
    alone), ICL comes at least 10 times later or not by {BLOCKED:,} in {float(wait):.0%}; with b and c of a finished run
    at once. (d) From early states of a CIWL-only run full training brings ICL, from late ones not. Given to ICL-only
    data, its b and c work from some time on; that they stop working, as in networks, is not in the model. (e) With
    mu_icl = 0 ICL persists. (f) With alpha = 1, mu_icl = 0.01 CIWL's loss has a bump ({(bump > 0.001).mean():.0%})."""
    plotting.finish(__file__, fig, caption)


if __name__ == "__main__":
    main()
