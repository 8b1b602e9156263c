"""Models fitted to a network's full data, against its other experiments, which they did not see.

Drawn from figures/data/fit_predictions_MODEL.nc, which `benchmarks/fit_predictions.py` writes.
"""

from pathlib import Path

import numpy as np
import xarray as xr

import toymodel as tm
from toymodel import plotting

DATA = Path(__file__).parent / "data"
MODELS = {
    "coopetition": ("published", "icl"),
    "shared_encoder": ("repeated letters", "ciwl"),
    "long_pathway": ("long pathway", "shared"),
    "attention": ("derived, nothing fitted", "other"),
}
LINES = {"stretched": ("stretched full run", "_", "loss"), "constant": ("constant", "_", "cost")}


def errors(network: str) -> dict[str, xr.Dataset]:
    """By model, the errors of a network's experiments; without those of full data, which were fitted."""
    found = {}
    for model in MODELS:
        path = DATA / f"fit_predictions_{model}.nc"
        if path.exists():
            of = tm.load(plotting.uses(path))
            parts = [str(case).split(" ") for case in of.case.values]
            of = of.assign_coords(experiment=("case", [p[2] for p in parts]))
            of = of.isel(case=[i for i, p in enumerate(parts) if p[0] == network and p[2] != "full"])
            if of.sizes["case"]:
                found[model] = of
    return found


def main() -> None:
    there = {network: found for network in ("disentangled", "transformer") if (found := errors(network))}
    fig, axes = plotting.new(1, len(there), 3.6 * len(there) + 1, 3.5, squeeze=False)
    said = []
    for ax, (network, found) in zip(axes.flat, there.items(), strict=True):
        one = next(iter(found.values()))
        place = np.arange(one.sizes["case"])
        for name, (label, marker, colour) in LINES.items():
            ax.plot(place, one[name], marker, color=plotting.COLOURS[colour], ms=14, mew=2, label=label)
        for i, (model, of) in enumerate(found.items()):
            label, colour = MODELS[model]
            at, style = place + 0.18 * (i - 1.5), {"color": plotting.COLOURS[colour], "ms": 4}
            ax.plot(at, of.predicted, "o", label=f"{label}: predicted", **style)
            if of.alone.notnull().any():
                ax.plot(at, of.alone, "o", mfc="none", label=f"{label}: fitted alone", **style)
            better = int((of.predicted < of.stretched).sum())
            median = float(of.predicted.median())
            alone = float(of.alone.median())
            said.append(
                f"{network}, {label}: better than the stretched curve in {better} of {place.size}; median error "
                f"{median:.3f}, {'' if np.isnan(alone) else f'fitted alone {alone:.3f}, '}"
                f"stretched {float(of.stretched.median()):.3f}"
            )
            assert model != "attention" or better == place.size, "what is derived from the network predicts it"
        names = [str(e).replace("_", " ") for e in one.experiment.values]
        ax.set_xticks(place, names, rotation=60, ha="right")
        ax.set(title=network, ylim=(0, None), xlim=(-0.6, place.size - 0.4))
        if network == "disentangled":  # of the transformer there is one, which stays at chance: a constant fits it
            assert (one.alone < one.constant).mean() > 0.5, "a model fitted to an experiment follows it in time in most"
    axes.flat[0].set_ylabel("root mean square error of accuracy")
    fig.legend(*axes.flat[0].get_legend_handles_labels(), loc="outside upper center", ncols=5, fontsize=6)
    plotting.panel_letters(axes.flat)
    caption = f"""Predictions of models that were fitted to full data alone, by experiment: error of accuracies among
    the labels in context (filled), of the same model fitted to the experiment itself (open), of the network's curve on
    full data stretched in time by the best factor, and of a constant. The model derived from the disentangled network
    has no fitted number, not even for full data. {"; ".join(said)}."""
    plotting.finish(__file__, fig, caption)


if __name__ == "__main__":
    main()
