"""First layer at each time with the second half at the end of training: what changes is the first layer.

Drawn from the curves in networks/, which `make networks` trains.
"""

from shared.networks import SYSTEMS

from toymodel import plotting
from toymodel.network.curves import band, curves, landmarks, spread


def main() -> None:
    fig, axes = plotting.new(1, 2, 6.4, 2.6)
    found = []
    for ax, (name, (title, _)) in zip(axes, SYSTEMS.items(), strict=True):
        one = curves(f"{name}_full")
        if "swapped_accuracy_in_context" not in one:  # it is made at the end of a training
            ax.set_visible(False)
            continue
        for evaluator, colour in (("icl", "icl"), ("flip", "loss"), ("ciwl", "ciwl")):
            swapped = one.swapped_accuracy_in_context.sel(evaluator=evaluator)
            band(ax, swapped, one.kept / 1000, colour, label=evaluator)
            unswapped = one.accuracy_in_context.sel(evaluator=evaluator).mean("seed")
            ax.plot(one.step / 1000, unswapped, color=plotting.COLOURS[colour], ls=":", lw=1)
        ax.axhline(0.5, color="0.7", lw=0.7, zorder=0)
        ax.set(ylim=(0, 1.03), xlabel="first half taken at step (thousands)", title=title)
        flip = one.swapped_accuracy_in_context.sel(evaluator="flip").mean("seed")
        found.append((flip, landmarks(one)))
    axes[0].set_ylabel("accuracy in context")
    axes[0].legend(loc="center right")
    (small, of_small), *others = found
    assert float(small.max()) > 0.85 and float(small[-1]) < 0.2
    said = "not trained to its end yet"
    for large, of in others:
        said = f"""flip is highest, {float(large.max()):.2f}, at step {int(large.kept[int(large.argmax())]):,}, and
        {float(large[-1]):.2f} at the end, against {spread(of.peak)} and {spread(of.end)} as trained"""
    plotting.panel_letters(axes)
    caption = f"""Layer swap: the first half as it was at each step, with the second half as it was at the end of
    training; no further training. Lines: means over seeds, bands: lowest to highest; dotted: the networks as
    trained. (a) Disentangled network (first half: A, V and M): with the second half of the end, flip still rises to
    {float(small.max()):.2f} and falls to {float(small[-1]):.2f}; as trained, {float(of_small.peak.mean()):.2f} and
    {float(of_small.end.mean()):.2f}. So ICL fades in the first half, and the second serves both strategies. (b)
    Transformer (second
    half: layer 2, last norm and read-out): {said}."""
    plotting.finish(__file__, fig, caption)


if __name__ == "__main__":
    main()
