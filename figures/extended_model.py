"""Everything that the paper reports of networks, in one model: a pathway of ICL that is one vector longer."""

import toymodel as tm
from toymodel import plotting

SEEDS, LR, SMALL_LR, TIME, BLOCKED = range(32), 1 / 4, 1 / 32, 8_000, 100_000
TAKEN = (30, 100, 300, 1000, 3000)  # times at which a CIWL-only run is taken
HELD = tm.Clamp("d", overlap=0, residual=0)
ICL_DATA, CIWL_DATA = tm.Change(loss=lambda icl, ciwl, cost: icl), tm.Change(loss=lambda icl, ciwl, cost: ciwl)


def run(start, time, *acts, every=10, lr=LR, **others):
    others |= {"lr": lr, "every": int(every / lr), "interventions": acts}
    return tm.descend(tm.long_pathway(), start, int(time / lr), **others)


def of_icl(runs, name="emergence"):
    return tm.measure(runs)[name].sel(mechanism="icl", drop=True)


def draw(axes, runs, mechanism, **style):
    style = {"color": plotting.COLOURS[mechanism], "label": plotting.NAMES[mechanism], **style}
    axes.plot(runs.time[1:], (runs[f"loss_{mechanism}"] / runs[f"unlearned_{mechanism}"])[1:], **style)


def main() -> None:
    start = tm.random_start(tm.long_pathway(), SEEDS, **tm.LONG_PATHWAY_START)
    full, charged = run(start, TIME), run(start, TIME, alpha=1.0, mu_icl=0.01)
    matched = run(start, TIME, lr=SMALL_LR, mu_icl=0.0)  # sharp late on: a step of LR would be unstable
    blocked, from_data = (run(start, BLOCKED, act, every=20) for act in (HELD, ICL_DATA))
    given = run(start, TIME, ICL_DATA, tm.Clamp("bc", like=tm.state_at(full, TIME)), every=2)
    taken = tm.state_at(run(start, TIME, CIWL_DATA), TAKEN)
    later, grafted = run(taken, TIME, every=20), run(start, TIME, ICL_DATA, tm.Clamp("bc", like=taken), every=20)
    first, alone, data = of_icl(full), of_icl(blocked), of_icl(from_data)
    transient, lasts = (tm.measure(full).phase == "transient ICL").mean(), of_icl(matched, "lasts").mean()
    wait = (~(alone < 10 * first) & ~(data < 10 * first)).mean()
    after, grafted = (of_icl(runs).notnull().mean("seed") for runs in (later, grafted))
    bump = tm.measure(charged).bump.sel(mechanism="ciwl") / charged.unlearned_ciwl
    assert min(transient, lasts, wait) >= 0.95 and (of_icl(given) < first / 5).all()
    assert (matched.loss.sel(seed=0).diff("time") <= 0).all() and (bump > 0.001).mean() > 0.5
    assert after[0] > 0.9 > 0.1 > after[-1] and grafted[0] < 0.1 < 0.9 < grafted[-1]

    fig, ((a, b, c), (d, e, f)) = plotting.new(2, 3, 7.2, 4.6)
    for axes, runs, seed in ((a, full, 0), (e, matched, 0), (f, charged, bump.idxmax("seed"))):
        for mechanism in ("icl", "ciwl"):
            draw(axes, runs.sel(seed=seed), mechanism)
    for runs, name, colour, dash in (
        (full, "full training", "icl", "-"),
        (blocked, "CIWL blocked", "icl", "--"),
        (from_data, "ICL-only data", "loss", ":"),
        (given, "ICL-only data, b and c given", "shared", "-"),
    ):
        draw(b, runs.sel(seed=0), "icl", color=plotting.COLOURS[colour], ls=dash, label=name)
        share = (runs.loss_icl < runs.unlearned_icl / 2).cumsum("time").clip(max=1).mean("seed")[1:]
        c.plot(share.time, share, dash, color=plotting.COLOURS[colour])
    d.plot(TAKEN, after, "o-", ms=4, color=plotting.COLOURS["icl"])
    d.plot(TAKEN, grafted, "s--", ms=4, color=plotting.COLOURS["shared"])
    d.text(TAKEN[0], 0.72, "full training\nfrom it", size=7, color=plotting.COLOURS["icl"])
    d.text(TAKEN[0], 0.07, "its b and c,\nICL-only\ndata", size=7, color=plotting.COLOURS["shared"])
    titles = "full training", "loss of ICL", "ICL has emerged", "ICL after CIWL-only data", "mu_icl = 0", "bump of CIWL"
    for axes, title, left in zip((a, b, c, d, e, f), titles, (300, 3, 3, 25, 300, 300), strict=True):
        plotting.log_time(axes, left)
        axes.set(title=title, ylim=(-0.05, 1.15), yticks=(0, 0.5, 1))
        axes.set_ylabel("share of starts" if axes in (c, d) else "loss / unlearned loss")
    a.legend(loc="lower left")
    fig.legend(*b.get_legend_handles_labels(), loc="outside upper center", ncols=4, title="b, c: ICL with")
    plotting.panel_letters((a, b, c, d, e, f))
    caption = f"""`long_pathway` (icl = a x e x b x c), {len(SEEDS)} starts, descent with step {LR:g}. (a) ICL comes
    first, CIWL replaces it: in {float(transient):.0%} of the starts. (b, c) With CIWL blocked (d held at zero), or on
    ICL-only data (its loss alone), ICL comes at least 10 times later or not by {BLOCKED:,} in {float(wait):.0%}; with b
    and c of a finished run at once. (d) From early states of a CIWL-only run full training brings ICL, from late ones
    not. Given to ICL-only data, its b and c work from some time on (and never stop to, as they do in networks). (e)
    With mu_icl = 0 ICL persists ({float(lasts):.0%}; step {SMALL_LR:g}). (f) With alpha = 1, mu_icl = 0.01 CIWL's loss
    has a bump ({float((bump > 0.001).mean()):.0%}). Curves: start 0, in f the one of the highest bump."""
    plotting.finish(__file__, fig, caption)


if __name__ == "__main__":
    main()
