"""ICL emerges and fades in two small networks as in the model; it stays with matched exemplars.

Drawn from the curves in networks/, which `make networks` trains.
"""

import toymodel as tm
from toymodel import plotting
from toymodel.network.curves import SMOOTH, band, bump, curves, landmarks, spread
from toymodel.network.runs import Runs


def main() -> None:
    small, large, matched = curves("disentangled_full"), curves("transformer_full"), curves("disentangled_matched")
    matched_large = curves("transformer_matched").accuracy_in_context.sel(evaluator="flip", step=slice(8000, None))
    quieter = curves("transformer_noise_1.4")
    few, many, less = landmarks(small), landmarks(large), landmarks(quieter)
    model = tm.coopetition(alpha=0.1, mu_icl=0.1)
    runs = tm.descend(model, tm.paper_start(model, seeds=range(12)), 16_000, every=5)
    toy = tm.measure(runs).sel(mechanism="icl")
    lasted = ((toy.emergence + toy.lifetime) / toy.emergence).where(~toy.lasts)
    raw = Runs().read("transformer_full").accuracy_in_context.sel(evaluator="flip").max("step")
    high = [int((of > 0.65).sum()) for of in (raw, many.peak)]
    rises = [bump(one) for one in (small, large)]
    early = [
        one.accuracy_in_context.sel(evaluator="flip").where(one.step < of.emergence).min("step")
        for one, of in ((small, few), (large, many))
    ]
    pure = max(float(c.accuracy.sel(evaluator="pure_iwl").max()) for c in (small, large))
    assert (few.peak > 0.8).all() and (few.end < 0.2).all() and few.seed.size == 20
    assert high[0] >= 4 and (many.peak > 0.55).all() and (many.end < 0.35).all() and pure < 0.02
    assert (less.peak > 0.65).all() and int((less.end < 0.35).sum()) >= 4
    assert min(rises) > 1.05 and max(float(of.max()) for of in early) < 0.5
    assert (matched.accuracy_in_context.sel(evaluator="flip", step=slice(1000, None)) > 0.8).all()
    assert (matched_large > 0.8).all()

    fig, axes = plotting.new(2, 3, 7.4, 4.6)
    titles = ("disentangled network", "transformer", "disentangled, matched")
    for ax, one, title in zip(axes[0], (small, large, matched), titles, strict=True):
        ax.plot(one.step / 1000, one.accuracy.sel(evaluator="train").mean("seed"), color="0.6", lw=0.8, label="train")
        for name, colour in (("icl", "icl"), ("flip", "loss"), ("ciwl", "ciwl")):
            band(ax, one.accuracy_in_context.sel(evaluator=name), one.step / 1000, colour, label=name)
        band(ax, one.accuracy.sel(evaluator="pure_iwl"), one.step / 1000, "iwl", label="pure_iwl")
        ax.axhline(0.5, color="0.7", lw=0.7, zorder=0)
        ax.set(ylim=(-0.03, 1.03), xlabel="steps (thousands)", title=title)
    axes[0, 1].plot(quieter.step / 1000, quieter.accuracy_in_context.sel(evaluator="flip").mean("seed"), "k--", lw=0.8)
    axes[0, 0].set_ylabel("accuracy in context")
    fig.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=5)

    one, first = runs.sel(seed=7, time=slice(1, None)), float(toy.emergence.sel(seed=7))
    for name in ("icl", "ciwl"):
        axes[1, 0].plot(one.time / first, one[f"loss_{name}"] / one[f"unlearned_{name}"], color=plotting.COLOURS[name])
    axes[1, 0].set(title="minimal model, seed 7", ylabel="loss / unlearned loss", ylim=(0, 1.3))
    for ax, one, of, title in zip(axes[1, 1:], (small, large), (few, many), titles, strict=False):
        for name in ("icl", "ciwl"):
            band(ax, one.loss.sel(evaluator=name), one.step / float(of.emergence.mean()), name)
        ax.set(ylabel="loss (nats)", ylim=(0, 2), title=title)
    for ax in axes[1]:
        ax.set(xscale="log", xlim=(0.2, 20), xlabel="time / emergence of ICL")
    plotting.panel_letters(axes.flat)
    caption = f"""Emergence and transience of ICL in two small networks and in the model. Lines: means over seeds;
    bands: lowest to highest seed; running means of {SMOOTH["disentangled"]} and {SMOOTH["transformer"]} evaluations.
    (a, b) Accuracy among the labels in context on the evaluators icl, flip (1: ICL, 0: CIWL) and ciwl, and among all
    labels on train and pure_iwl. Disentangled network, {few.seed.size} seeds: flip peaks at {spread(few.peak)} and ends
    at {spread(few.end)}. Transformer, {many.seed.size} seeds: peak {spread(many.peak)}, end {spread(many.end)}; flip
    passes 0.65 in {high[1]} of {many.seed.size} seeds, and in {high[0]} at some single evaluation; with noise 1.4
    within classes instead of 1.5 (dashed) in all, peak {spread(less.peak)}, end {spread(less.end)}. A part of CIWL
    comes before ICL in every seed: flip first falls, to {spread(early[0])} and {spread(early[1])}. Accuracy on pure_iwl
    stays below {pure + 5e-4:.3f}. (c) With matched exemplars ICL stays; so it does in the transformer, where flip is
    above {float(matched_large.min()) - 5e-3:.2f} in all {matched_large.seed.size} seeds from step 8,000 to
    {int(matched_large.step[-1]):,}. (d to f) Losses; time is scaled by the emergence of ICL (in networks: flip above
    0.55). Time at which ICL is gone over that of its emergence: disentangled network {spread(few.ratio, 1)},
    transformer {spread(many.ratio, 1)}, model {spread(lasted, 1)} (the {int(lasted.notnull().sum())} of {lasted.size}
    seeds where it ends within {int(runs.time[-1]):,} steps). As ICL emerges the loss of CIWL, in the mean over seeds,
    rises above its lowest by {100 * (rises[0] - 1):.0f} % and {100 * (rises[1] - 1):.0f} %."""
    plotting.finish(__file__, fig, caption)


if __name__ == "__main__":
    main()
