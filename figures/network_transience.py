"""ICL emerges and fades in the paper's networks, in ours, and in the model; it stays with matched exemplars.

Drawn from the curves in networks/, which `make networks` trains, and from those read off the paper (networks/paper/).
"""

from shared.networks import SYSTEMS, at, of_toy

from toymodel import plotting
from toymodel.network.curves import band, bump, curves, curves_there, landmarks, last, seeds_of, spread, uses_paper
from toymodel.network.paper import SEEDS, paper_curve, paper_curves, paper_number

PANELS = {"flip": "flip (1: ICL, 0: CIWL)", "icl": "icl", "ciwl": "ciwl"}


def main() -> None:
    uses_paper()
    ours = {name: curves(f"{name}_full") for name in SYSTEMS}
    matched = curves_there(*(f"{name}_matched" for name in SYSTEMS))
    marks = {name: landmarks(of) for name, of in ours.items()}
    unit = {name: float(of.emergence.median()) for name, of in marks.items()}
    paper, same = paper_curves("main"), paper_curve("matched exemplars", "accuracy_flip")
    paper_unit, six = landmarks(paper).emergence.item(), landmarks(paper_curves(*SEEDS))
    fig, axes = plotting.new(2, 3, 7.4, 4.6)
    for ax, (evaluator, label) in zip(axes[0], PANELS.items(), strict=True):
        for name, (title, colour) in SYSTEMS.items():
            values = at(ours[name], evaluator)
            band(ax, values, values.step / unit[name], colour, label=title)
        curve = at(paper, evaluator).isel(seed=0)
        ax.plot(curve.step / paper_unit, curve, "k--", lw=1, label="the paper's network")
        ax.set(ylim=(-0.03, 1.03), ylabel=label)
    losses, stays, of_model = axes[1]
    for name in ("ciwl", "icl"):
        curve, values = paper_curve("main", f"loss_{name}"), ours["transformer"].loss.sel(evaluator=name)
        losses.plot(curve.step / paper_unit, curve, "--", color=plotting.COLOURS[name], lw=1)
        band(losses, values, values.step / unit["transformer"], name, label=f"loss on {name}")
        of_model.plot(*of_toy(name), color=plotting.COLOURS[name], label=plotting.NAMES[name])
    for name, of in matched.items():
        system = name.split("_")[0]
        band(stays, at(of, "flip"), of.step / unit[system], SYSTEMS[system][1])
    stays.plot(same.step / paper_unit, same, "k--", lw=1)
    losses.set(ylabel="nats", ylim=(0, 10))
    stays.set(ylim=(-0.03, 1.03), ylabel="flip, matched exemplars")
    of_model.set(ylabel="loss / unlearned loss", ylim=(0, 1.3), title="minimal model, seed 7")
    for ax in axes.flat:
        ax.set(xscale="log", xlim=(0.2, 20), xlabel="time / emergence of ICL")
    for ax in (losses, of_model):
        ax.legend(fontsize=6)
    fig.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=3)
    plotting.panel_letters(axes.flat)

    few, large, full = marks["disentangled"], marks["transformer"], ours["transformer"]
    before, loss = (
        of.interp(step=large.emergence.mean()) for of in (at(full, "ciwl"), full.loss.sel(evaluator="train"))
    )
    ends, pure = last(at(full, "ciwl")), float(full.accuracy.sel(evaluator="pure_iwl").max())
    rises = {name: 100 * (bump(of) - 1) for name, of in ours.items()}
    stay = "; ".join(f"{SYSTEMS[name.split('_')[0]][0]} {spread(last(at(of, 'flip')))}" for name, of in matched.items())
    assert (few.peak > 0.8).all() and (few.end < 0.2).all() and pure < 0.1
    assert (large.peak > 0.62).all() and 1.7 < large.ratio.median() < 3.5 and (before < 0.85).all()
    assert (large.end < 0.3).all() and (ends > 0.9).all()
    caption = f"""Emergence and transience of ICL in the paper's network (dashed: its main run, read off its
    figures), in our transformer of the same architecture on Gaussian classes ({seeds_of(large)}), in the
    disentangled network ({few.seed.size} seeds) and in the model. Lines: means over seeds; bands: lowest to
    highest. Time over the emergence of ICL: flip up through 1/2. (a to c) Accuracies among the labels in context.
    Highest flip: paper, six seeds, {spread(six.peak)}; transformer {spread(large.peak)}; disentangled network
    {spread(few.peak)}. End of ICL over its emergence: {spread(six.ratio, 1)}; {spread(large.ratio, 1)};
    {spread(few.ratio, 1)}. As ICL emerges, ciwl is {float(before.mean()):.2f} in the transformer (paper, at the
    highest flip: {paper_number("ciwl when flip peaks"):.2f}) and the loss {float(loss.mean()):.1f} nats
    ({paper_number("total loss when ICL emerges"):.1f}). At the end of our runs flip is {spread(large.end)} and ciwl
    {spread(ends)}; pure_iwl stays below {pure + 5e-4:.3f}. (d) Losses (dashed: paper). As ICL emerges that of CIWL
    rises above its lowest by {100 * paper_number("bump of the CIWL loss"):.0f} % in the paper, and in the mean over
    seeds by {rises["transformer"]:.1f} % in the transformer and {rises["disentangled"]:.0f} % in the disentangled
    network. (e) Matched exemplars: flip at the end {stay}; paper up to {float(same.max()):.2f}. (f) Model."""
    plotting.finish(__file__, fig, caption)


if __name__ == "__main__":
    main()
