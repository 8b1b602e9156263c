"""First layer at each time with the second half at the end of training: what changes is the first layer.

Drawn from the curves in networks/, which `make networks` trains.
"""

from toymodel import plotting
from toymodel.network.curves import band, curves, landmarks


def main() -> None:
    names = {"disentangled_full": "disentangled network", "transformer_full": "transformer"}
    fig, axes = plotting.new(1, 2, 6.4, 2.6)
    found = []
    for ax, (name, title) in zip(axes, names.items(), strict=True):
        one = curves(name)
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
    (small, of_small), (large, of_large) = found
    assert float(small.max()) > 0.85 and float(small[-1]) < 0.2
    assert float(large.max()) < 0.5 and float(large[0]) < float(large.max()) - 0.1
    plotting.panel_letters(axes)
    caption = f"""Layer swap: the first layer (A, V and M of the disentangled network) as it was at each step, with
    the second half as it was at the end of training, where CIWL has won; no further training. Lines: means over
    seeds, bands: lowest to highest; dotted: the networks as trained. (a) Disentangled network: with the second half
    of the end, flip still rises to {float(small.max()):.2f} and falls to {float(small[-1]):.2f}; as trained,
    {float(of_small.peak.mean()):.2f} and {float(of_small.end.mean()):.2f}. So ICL fades in the first layer, and the
    second serves both strategies. (b) Transformer: flip rises from {float(large[0]):.2f} at the
    start to {float(large.max()):.2f} and falls to {float(large[-1]):.2f} at the end, against
    {float(of_large.peak.mean()):.2f} as trained, and is below 0.5 at all times: under the second half of the end (layer
    2, final gain, and the label vectors, which the first layer reads as well) no first half prefers ICL."""
    plotting.finish(__file__, fig, caption)


if __name__ == "__main__":
    main()
