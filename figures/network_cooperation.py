"""Cooperation in networks: ICL-only data from scratch, against full data and against a second half that is given.

Drawn from the curves in networks/, which `make networks` trains.
"""

from shared.compared import first, in_words, over

from toymodel import plotting
from toymodel.network.curves import band, curves, spread

KINDS = {
    "full": ("icl", "full data"),
    "blocked": ("other", "full data, CIWL blocked"),
    "icl_only": ("loss", "ICL-only data"),
    "given": ("shared", "ICL-only data, second half given"),
}
NETWORKS = {
    "disentangled network": dict(full="full", icl_only="icl_only", given="icl_given_end", blocked="ciwl_blocked"),
    "... with a high barrier": dict(
        full="barrier",
        icl_only="barrier_icl_only",
        given="barrier_icl_given_end",
        blocked="barrier_ciwl_blocked",
    ),
    "transformer": dict(full="full", icl_only="icl_only", given="icl_given_end"),
}


def main() -> None:
    fig, axes = plotting.new(1, 3, 7.2, 3.0)
    steps, budget = {}, {}
    for ax, (title, names) in zip(axes, NETWORKS.items(), strict=True):
        network = "transformer" if title == "transformer" else "disentangled"
        for kind, name in names.items():
            accuracy = curves(f"{network}_{name}").accuracy_in_context.sel(evaluator="icl", drop=True)
            accuracy = accuracy.isel(seed=slice(0, 5))
            steps[title, kind], budget[title, kind] = first(accuracy), int(accuracy.step[-1])
            colour, text = KINDS[kind]
            if title == "transformer":  # seeds differ too much for a band
                ax.plot(accuracy.step / 1000, accuracy, color=plotting.COLOURS[colour], lw=0.8)
            else:
                band(ax, accuracy, accuracy.step / 1000, colour, label=text)
        scale = float(steps[title, "full"].median())
        ax.axvline(scale / 1000, color="0.7", lw=0.7, zorder=0)
        ax.set(title=title, xlabel="steps (thousands)", ylim=(0.4, 1.03), xlim=(0, 6 * scale / 1000))
    axes[0].set_ylabel("icl, accuracy in context")
    fig.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=4)
    plotting.panel_letters(axes)
    few, _, big = NETWORKS
    small, high, large = ({kind: steps[title, kind] for kind in names} for title, names in NETWORKS.items())
    ratios = [spread(of["icl_only"] / of["given"], 1) for of in (small, high)]
    slower = spread(high["icl_only"] / high["full"], 1)
    assert (small["icl_only"] / small["full"]).mean() < 1.2 and (high["icl_only"] > 1.8 * high["full"]).all()
    assert (high["icl_only"] > 8 * high["given"]).all() and large["full"].notnull().all()
    assert (small["blocked"] < small["full"]).all() and (high["blocked"] < high["full"]).all()
    said = {key: in_words(of, budget[key]) for key, of in steps.items()}
    blocked = [
        f"{float(of['blocked'].mean()):.0f} steps instead of {float(of['full'].mean()):.0f}" for of in (small, high)
    ]
    gain = over(large["icl_only"], large["given"], budget[big, "icl_only"])
    caption = f"""Accuracy of ICL on the evaluator icl, five seeds (a, b: mean, lowest and highest; c: each), and
    steps until it is 0.75, by seed (grey line: median on full data). (a) Disentangled network: {said[few, "icl_only"]}
    on ICL-only data, hardly later than on full data ({said[few, "full"]}); with the second half (W, g) held at that
    of the end of full training {ratios[0]} times sooner than from scratch. (b) The same with a high barrier (label
    tokens look at themselves, 4 instead of 2) and a slow CIWL: ICL-only data take {slower} times as long as full
    data, and {ratios[1]} times as long as with the second half given. Where CIWL is blocked on full data (M held at
    zero) ICL comes sooner in both ({blocked[0]}; {blocked[1]}): keys are normalised, so without label codes the weak
    trace of the exemplar fills them. (c) Transformer: {said[big, "full"]} on full data; {said[big, "icl_only"]} on
    ICL-only data; {said[big, "given"]} with the second half (layer 2, final gain, label vectors) held at that of the
    end of full training: ICL-only data take {gain} times as long as with it. What CIWL has left helps the seeds that
    learn no ICL alone, and delays the two that do."""
    plotting.finish(__file__, fig, caption)


if __name__ == "__main__":
    main()
