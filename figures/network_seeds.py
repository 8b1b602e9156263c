"""Strength and lifetime of ICL, seed by seed: the paper's six, ours, and what noise and rate do to both.

Drawn from the curves in networks/, which `make networks` trains, those read off the paper (networks/paper/), and
the log of the search for the setting (networks/search.csv).
"""

import numpy as np
from shared.networks import at, searched

from toymodel import plotting
from toymodel.network.curves import curves, landmarks, seeds_of, spread, uses_paper
from toymodel.network.paper import SEEDS, paper_curves

OTHERS = ("12800 classes x 5", "12800 classes x 20, MLP", "12800 classes x 5, MLP")


def main() -> None:
    uses_paper()
    ours, paper, search = curves("transformer_full"), paper_curves(*SEEDS), searched()
    of_ours, of_paper, of_others = landmarks(ours), landmarks(paper), landmarks(paper_curves(*OTHERS))
    fig, (left, right, knobs) = plotting.new(1, 3, 7.4, 2.6, gridspec_kw={"width_ratios": (1, 1, 1.1)})
    for ax, of, marks, title in (
        (left, paper, of_paper, "paper, six seeds"),
        (right, ours, of_ours, f"transformer, {seeds_of(ours)}"),
    ):
        unit = float(marks.emergence.median())
        for seed, colour in zip(of.seed.values, plotting.shades(of.seed.size), strict=True):
            flip = at(of, "flip").sel(seed=seed)
            ax.plot(of.step / unit, flip, color=colour, lw=1)
        ax.axhline(0.5, color="0.7", lw=0.7, zorder=0)
        ax.set(xscale="log", xlim=(0.2, 20), ylim=(0, 1), title=title, xlabel="time / median emergence", ylabel="flip")
    knobs.plot(of_paper.peak, of_paper.ratio, "ks", ms=4, label="paper, seeds")
    knobs.plot(of_others.peak, of_others.ratio, "kx", ms=5, label="paper, 5 exemplars, MLP")
    knobs.plot(of_ours.peak, of_ours.ratio, "o", ms=4, color=plotting.COLOURS["icl"], label="ours, seeds")
    knobs.plot(search.peak, search.ratio, "^", ms=4, color=plotting.COLOURS["other"], label="ours, search")
    for noise, peak, ratio in zip(search.noise.values, search.peak.values, search.ratio.values, strict=True):
        if np.isfinite(ratio):
            knobs.annotate(f"{noise:g}", (peak, ratio), xytext=(3, 3), textcoords="offset points", fontsize=6)
    knobs.set(xlim=(0.5, 1), ylim=(1, 20), yscale="log", xlabel="highest flip", ylabel="end of ICL / its emergence")
    knobs.legend(fontsize=6, loc="upper left")
    plotting.panel_letters((left, right, knobs))
    known = search.dropna("run", subset=["ratio"])
    assert of_paper.ratio.notnull().all() and 1.7 < of_ours.ratio.median() < 3.5
    caption = f"""Strength and lifetime of ICL. (a) The paper's six seeds: highest flip {spread(of_paper.peak)}, end
    of ICL over its emergence {spread(of_paper.ratio, 1)}, median {float(of_paper.ratio.median()):.1f}. (b) Our
    transformer: {spread(of_ours.peak)}; {spread(of_ours.ratio, 1)}, median {float(of_ours.ratio.median()):.1f}. (c)
    Both grow together, over seeds and where the data make ICL easier: crosses, the paper's runs with 5 exemplars a
    class or an MLP; triangles, our search over noise within classes (numbers; one seed each, {known.run.size} of
    {search.run.size} runs, those in which ICL emerged and ended in the budget; networks/search.csv has all)."""
    plotting.finish(__file__, fig, caption)


if __name__ == "__main__":
    main()
