"""Cooperation in networks: ICL-only data from scratch, against full data and against a second half that is given.

Drawn from the curves in networks/, which `make networks` trains.
"""

import xarray as xr
from shared.compared import first

from toymodel import plotting
from toymodel.network.curves import band, curves, spread

KINDS = {
    "full": ("icl", "full data"),
    "icl_only": ("loss", "ICL-only data"),
    "given": ("shared", "... second half given"),
}
NETWORKS = {
    "disentangled network": {"full": "full", "icl_only": "icl_only", "given": "icl_given_end"},
    "... with a high barrier": {"full": "barrier", "icl_only": "barrier_icl_only", "given": "barrier_icl_given_end"},
    "transformer": {"full": "full", "icl_only": "icl_only", "given": "icl_given_end"},
}


def in_words(steps: xr.DataArray, budget: int) -> str:
    """By seed, and how many never."""
    come = sorted(int(step) for step in steps.dropna("seed"))
    never = int(steps.isnull().sum())
    return ", ".join([f"{step:,}" for step in come] + ([f"not by {budget:,} in {never}"] if never else []))


def main() -> None:
    fig, axes = plotting.new(1, 3, 7.2, 2.7)
    said, kept = {}, {}
    for ax, (title, names) in zip(axes, NETWORKS.items(), strict=True):
        network = "transformer" if title == "transformer" else "disentangled"
        found = {}
        for kind, name in names.items():
            accuracy = curves(f"{network}_{name}").accuracy_in_context.sel(evaluator="icl", drop=True)
            accuracy = accuracy.isel(seed=slice(0, 5))
            found[kind] = first(accuracy)
            colour, text = KINDS[kind]
            if title == "transformer":  # seeds differ too much for a band
                ax.plot(accuracy.step / 1000, accuracy, color=plotting.COLOURS[colour], lw=0.8)
            else:
                band(ax, accuracy, accuracy.step / 1000, colour, label=text)
            said[title, kind] = in_words(found[kind], int(accuracy.step[-1]))
        scale = float(found["full"].median())
        ax.axvline(scale / 1000, color="0.7", lw=0.7, zorder=0)
        ax.set(title=title, xlabel="steps (thousands)", ylim=(0.4, 1.03), xlim=(0, 6 * scale / 1000))
        kept[title] = found
    axes[0].set_ylabel("icl, accuracy in context")
    axes[1].legend(loc="lower right")
    plotting.panel_letters(axes)
    small, barrier, large = kept.values()
    ratios = [spread(of["icl_only"] / of["given"], 1) for of in (small, barrier)]
    slower = spread(barrier["icl_only"] / barrier["full"], 1)
    assert (small["icl_only"] / small["full"]).mean() < 1.1 and (barrier["icl_only"] > 1.8 * barrier["full"]).all()
    assert (barrier["icl_only"] > 10 * barrier["given"]).all() and large["full"].notnull().all()
    helped = large["given"].notnull() & (large["given"] < large["icl_only"].fillna(1e9))
    alone = large["icl_only"].notnull()
    assert (helped | alone).all() and not (helped & alone).any()
    few, _, big = NETWORKS
    caption = f"""Accuracy of ICL on the evaluator icl, five seeds (a, b: mean, lowest and highest; c: each), and
    steps until it is 0.75 (grey line: median on full data). (a) Disentangled network: {said[few, "icl_only"]}
    steps on ICL-only data, as on full data ({said[few, "full"]}): no cooperation; with the second half (W, g)
    held at that of the end of full training {ratios[0]} times sooner than from scratch. (b) The same with a high
    barrier (label tokens look at themselves, 4 instead of 2) and a slow CIWL: ICL-only data take {slower} times
    as long as full data, and {ratios[1]} times as long as with the second half given. (c) Transformer: all five
    seeds on full data ({said[big, "full"]}); on ICL-only data {said[big, "icl_only"]} seeds; with the second half
    (layer 2, final gain, label vectors) held at that of the end of full training {said[big, "given"]}. The
    {int(helped.sum())} seeds that learn no ICL alone do so with what CIWL has left; in the {int(alone.sum())}
    seeds that learn it alone, what CIWL has left delays it or prevents it."""
    plotting.finish(__file__, fig, caption)


if __name__ == "__main__":
    main()
