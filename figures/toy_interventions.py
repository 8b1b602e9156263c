"""Toy versions of the paper's interventions on networks: training on ICL alone, either strategy blocked, mu_icl = 0."""

import toymodel as tm
from toymodel import plotting

SEED, STEPS = 7, 16_000
NEVER = 1e6  # where what is never learned is drawn
ICL_ALONE = tm.Change(loss=lambda icl, ciwl, cost: icl)


def main() -> None:
    model = tm.coopetition(alpha=0.1, mu_icl=0.1)
    start = tm.paper_start(model, seeds=range(12))
    both = tm.descend(model, start, STEPS, mu_icl=[0.1, 0.0])
    full, matched = (both.sel(mu_icl=mu, drop=True) for mu in both.mu_icl)
    settled = tm.measure(full).phase == "transient ICL"
    given = [ICL_ALONE, tm.Clamp("bc", like=tm.state_at(full, STEPS))]
    runs = {
        "full training": full,
        "ICL alone": tm.descend(model, start, STEPS, interventions=given[:1]),
        "ICL alone, b, c given": tm.descend(model, start, 1_000, interventions=given),
        "CIWL removed (d = 0)": tm.descend(model, start, STEPS, interventions=[tm.Clamp("d", overlap=0, residual=0)]),
        "CIWL's gradient cut": tm.descend(model, start, STEPS, interventions=[tm.Block("ciwl")]),
        "ICL removed (a = 0)": tm.descend(model, start, STEPS, interventions=[tm.Clamp("a", overlap=0, residual=0)]),
        "matched (mu_icl = 0)": matched,
    }
    first = {letter: tm.measure(run).emergence for letter, run in zip("abcdefg", runs.values(), strict=True)}
    icl, ciwl = ({k: m.sel(mechanism=name) for k, m in first.items()} for name in ("icl", "ciwl"))
    count = {k: int(m.notnull().sum()) for k, m in icl.items()}
    assert count["b"] == count["d"] == count["e"] == settled.size > count["a"] == count["c"] == count["g"]
    assert (icl["b"] < icl["a"].fillna(STEPS)).all() and (icl["g"].notnull() == settled).all()
    assert tm.measure(matched).lasts.sel(mechanism="icl").where(settled, True).all()
    assert not (icl["f"].notnull() | ciwl["g"].notnull()).any()
    later = {k: int((icl[k] > icl["a"]).sum()) for k in "de"}
    assert icl["e"].sel(seed=SEED) > icl["a"].sel(seed=SEED)
    sooner = float((icl["a"] / icl["b"]).median())

    fig, axes = plotting.new(2, 4, 7.2, 3.9)
    for panel, (name, run) in zip(axes.flat, runs.items(), strict=False):
        one = run.sel(seed=SEED)
        for m in ("ciwl", "icl"):
            ratio = one[f"loss_{m}"] / one[f"unlearned_{m}"]
            panel.plot(one.time, ratio, color=plotting.COLOURS[m], label=plotting.NAMES[m])
        panel.axhline(0.5, color=plotting.COLOURS["cost"], lw=0.6, ls=":")
        panel.set(title=name, ylim=(0, 4 if run is matched else 1.6), xlim=(0, 60 if "given" in name else STEPS))
        panel.set_ylabel("loss / unlearned loss" if panel in axes[:, 0] else "")
        panel.set_xlabel(plotting.TIME) if "given" in name else plotting.thousands(panel)
    summary = axes[1, 3]
    for name, times, shift in (("icl", icl, -0.2), ("ciwl", ciwl, 0.2)):
        for row, t in enumerate(times.values()):
            summary.plot(t.fillna(NEVER), row + shift + t.seed / 40 - 0.14, "o", ms=2, color=plotting.COLOURS[name])
    summary.set(title="emergence, all seeds", xlabel=plotting.TIME, yticks=range(7), yticklabels="abcdefg")
    summary.set(xscale="log", xlim=(1, 3 * NEVER), ylim=(6.5, -0.5))
    summary.set_xticks([1, 100, 10_000, NEVER], ["$10^0$", "$10^2$", "$10^4$", "never"], minor=False)
    summary.minorticks_off()
    plotting.panel_letters(axes.flat)
    axes[0, 0].legend(loc="upper right")
    caption = f"""The paper's interventions on networks in the minimal model (alpha = {model.parameters["alpha"]:g},
    mu_icl = {model.parameters["mu_icl"]:g}; seed {SEED}; below the dotted line a mechanism counts as learned). (a) Full
    training: ICL is learned in {count["a"]} of {settled.size} seeds. (b) The loss of ICL alone, from scratch. Networks
    then stay on the plateau for longer than anyone waited; the model does not show this: ICL is learned in {count["b"]}
    of {settled.size} seeds, and {sooner:.1f} times sooner than in a (median). (c) The same with b and c held at those
    of the finished run a: at once, as in networks, within {float(icl["c"].max()):.0f} steps in the {count["c"]} seeds
    whose run a has finished (mind the axis of time; CIWL is above it). (d) CIWL removed and (e) its gradient blocked:
    that ICL needs CIWL is not in the model at these parameters; ICL is learned in {count["d"]} and {count["e"]} of
    {settled.size} seeds, later than in a in only {later["d"]} and {later["e"]} of them; the seed of e is one of these
    (step {float(icl["e"].sel(seed=SEED)):,.0f} against {float(icl["a"].sel(seed=SEED)):,.0f}). (d is b slowed by the
    constant loss of CIWL in front of its gradient.) (f) ICL removed: CIWL is learned without it in
    {int(ciwl["f"].notnull().sum())} seeds, with it in {int(ciwl["a"].notnull().sum())}. (g) mu_icl = 0: ICL stays in
    all {count["g"]} seeds that learn it, and CIWL never comes, as in networks whose query equals an exemplar. (h) When
    ICL (blue) and CIWL (orange) are learned."""
    plotting.finish(__file__, fig, caption)


if __name__ == "__main__":
    main()
