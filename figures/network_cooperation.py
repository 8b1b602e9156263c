"""Cooperation in networks: ICL-only data from scratch, against full data and against a second half that is given.

Drawn from the curves in networks/, which `make networks` trains, and from those read off the paper (networks/paper/).
"""

import numpy as np
from shared.compared import first, in_words, over
from shared.networks import at

from toymodel import plotting
from toymodel.network.curves import band, curves, curves_there, landmarks, spread, uses_paper
from toymodel.network.paper import paper_curve, paper_curves, paper_number

KINDS = {
    "full": ("icl", "full data"),
    "blocked": ("other", "full data, CIWL blocked"),
    "icl_only": ("loss", "ICL-only data"),
    "given": ("shared", "ICL-only data, second half given"),
}
NAMES = dict(full="full", icl_only="icl_only", given="icl_given_end", blocked="ciwl_blocked")
NETWORKS = {"disentangled network": "disentangled_", "... with a high barrier": "disentangled_barrier_"}
NETWORKS |= {"transformer": "transformer_"}
PAPER = {"icl_only": "icl_only from scratch", "given": "icl_only, second half of the finished run"}


def main() -> None:
    uses_paper()
    fig, (paper, *axes) = plotting.new(1, 4, 7.4, 2.7)
    unit = landmarks(paper_curves("main")).emergence.item()
    for kind, condition in PAPER.items():
        loss = paper_curve(condition, "loss_train")
        paper.plot(loss.step / unit, loss, color=plotting.COLOURS[KINDS[kind][0]], ls="--", lw=1)
    paper.axhline(np.log(2), color="0.7", lw=0.7, zorder=0)
    paper.set(title="the paper's network", ylim=(0, 2), xscale="log", xlim=(0.2, 20), ylabel="loss on ICL-only data")
    steps, budget = {}, {}
    for ax, (title, prefix) in zip(axes, NETWORKS.items(), strict=True):
        named = {prefix + NAMES[kind]: kind for kind in NAMES}
        if prefix == "disentangled_barrier_":
            named = {"disentangled_barrier": "full"} | {n: k for n, k in named.items() if k != "full"}
        there = {named[name]: of for name, of in curves_there(*named).items()}
        scale = float(first(at(there["full"], "icl")).median())
        for kind, of in there.items():
            accuracy = at(of, "icl").isel(seed=slice(0, 5))
            steps[title, kind], budget[title, kind] = first(accuracy), int(accuracy.step[-1])
            colour, label = KINDS[kind]
            alike = title != "transformer"  # seeds that differ are drawn one by one
            for own in [accuracy] if alike else [accuracy.isel(seed=[i]) for i in range(accuracy.seed.size)]:
                band(ax, own, own.step / scale, colour, label=label)
        ax.set(title=title, ylim=(0.4, 1.03), xlim=(0.1, 10), xscale="log")
    axes[0].set_ylabel("icl, accuracy in context")
    fig.supxlabel("time / emergence of ICL", fontsize=8)
    fig.legend(*axes[0].get_legend_handles_labels(), loc="outside upper center", ncols=4)
    plotting.panel_letters((paper, *axes))
    few, much, big = NETWORKS
    high, large = ({kind: of for (system, kind), of in steps.items() if system == title} for title in (much, big))
    later, given = (over(large[kind], large["full"], budget[big, kind]) for kind in ("icl_only", "given"))
    alone = budget[big, "icl_only"] / float(landmarks(curves("transformer_full")).emergence.median())
    small = {kind: of for (system, kind), of in steps.items() if system == few}
    assert (small["icl_only"] / small["full"]).mean() < 1.2 and (high["icl_only"] > 1.8 * high["full"]).all()
    assert (high["icl_only"] > 8 * high["given"]).all() and (small["blocked"] < small["full"]).all()
    said = {key: in_words(of, budget[key]) for key, of in steps.items()}
    none = paper_number("ICL-only data: ICL not by", "from scratch")
    half = paper_number("ICL-only data: below ln 2", "second half of the finished run")
    caption = f"""ICL-only data. (a) Paper: the loss stays above ln 2 (grey) until
    {none:.0f} times the emergence on full data; with the second half of the finished run held it passes ln 2 at
    {half:.2f} of that emergence. (b to d) Accuracy on the evaluator icl (mean, lowest and highest of up to five
    seeds; d: each seed); time over the median step at which it passes 0.75 on full data. Steps until 0.75, by seed: (b)
    disentangled network {said[few, "icl_only"]}; full data {said[few, "full"]}. (c) With a high barrier
    ICL-only data take {spread(high["icl_only"] / high["full"], 1)} times as long as full data, and
    {spread(high["icl_only"] / high["given"], 1)} times as long as with the second half given. Where CIWL is
    blocked on full data (M held at zero) ICL comes sooner in both. (d) Transformer:
    {said[big, "full"]} on full data, {said[big, "icl_only"]} on ICL-only data: times as long, by seed,
    {later}, with the second half given {given}. From scratch {int(large["icl_only"].isnull().sum())} of
    {large["icl_only"].size} seeds do not come by {alone:.1f} times the step at which flip passes 1/2 on full data."""
    plotting.finish(__file__, fig, caption)


if __name__ == "__main__":
    main()
