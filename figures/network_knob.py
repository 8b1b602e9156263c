"""Two knobs of the small network held against the model: noise within classes (mu_icl), number of classes (d).

Drawn from the curves in networks/, which `make networks` trains; the model's trends are those of its theory.
"""

import matplotlib
import numpy as np
from shared.knobs import CLASSES, NOISE, of_model, of_network, power

import toymodel as tm
from toymodel import plotting
from toymodel.network.curves import band


def main() -> None:
    found = {"noise": of_network("noise", NOISE), "classes": of_network("classes", CLASSES)}
    mus, entries = np.geomspace(0.01, 0.3, 12), np.arange(50, 641, 10)
    model = tm.coopetition()
    unlearned = float(tm.descend(model, tm.aligned_start(model), 1).unlearned_icl)
    predicted = {
        "noise": (mus / unlearned, of_model(model, mu_icl=mus.tolist()).values),
        "classes": (entries / 160, np.array([of_model(tm.coopetition(dims=(20, 20, 20, int(n)))) for n in entries])),
    }
    noise, classes = (marks.median("seed") for _, marks in found.values())
    for medians, sign in ((noise, -1), (classes, 1)):
        assert (sign * medians.ratio.dropna("knob").diff("knob") > 0).all()

    fig, axes = plotting.new(2, 3, 7.2, 4.6)
    names = {"noise": "noise within classes", "classes": "classes (thousands)"}
    for (curve, height, ratio), (knob, (flip, marks)) in zip(axes, found.items(), strict=True):
        unit = 1000 if knob == "classes" else 1
        colours = matplotlib.colormaps["viridis"](np.linspace(0, 0.9, flip.knob.size))
        for value, colour in zip(flip.knob.values, colours, strict=True):
            curve.plot(
                flip.step / 1000, flip.sel(knob=value).mean("seed"), color=colour, lw=1, label=f"{value / unit:g}"
            )
        compact = {"ncols": len(flip.knob), "fontsize": 6, "title_fontsize": 7, "handlelength": 0.7}
        compact |= {"columnspacing": 0.7, "handletextpad": 0.3, "bbox_to_anchor": (0.5, 0.97)}
        curve.legend(title=names[knob], loc="lower center", **compact)
        curve.set(xlabel="steps (thousands)", ylabel="flip (1: ICL, 0: CIWL)", ylim=(0, 1.03))
        for name, colour, text in (("peak", "icl", "highest flip"), ("end", "loss", "last flip")):
            band(height, marks[name], marks.knob / unit, colour, marker=".", label=text)
        height.set(xlabel=names[knob], ylabel="flip", ylim=(0, 1.03))
        x = marks.left.median("seed") if knob == "noise" else marks.knob / 3000
        ratio.plot(x, marks.ratio, ".", color=plotting.COLOURS["icl"])[0].set_label("network, by seed")
        ratio.plot(*predicted[knob], color=plotting.COLOURS["shared"], label="theory of the model")
        ratio.set(xscale="log", yscale="log", ylim=(1, 30), ylabel="end of ICL / its emergence")
        ratio.legend()
    axes[0, 2].set_xlabel("loss that ICL leaves / unlearned")
    axes[1, 2].set_xlabel("classes / 3,000; entries of d / 160")
    for ax, ticks in ((axes[0, 2], (0.02, 0.1, 0.5)), (axes[1, 2], (0.5, 1, 2, 4))):
        ax.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
        ax.minorticks_off()
    plotting.panel_letters(axes.flat)
    clear = classes.where(classes.peak > 0.65)  # where flip hardly passes 1/2, its times are those of noise
    there, known = noise.left.where(noise.ratio.notnull()), [int(of.ratio.notnull().sum()) for of in (noise, clear)]
    shared = (mus / unlearned > float(there.min())) & (mus / unlearned < float(there.max()))
    slopes = [power(predicted["noise"][0][which], predicted["noise"][1][which]) for which in (~shared, shared)]
    slopes += [power(*predicted["classes"])]
    measured = [power(noise.left, noise.ratio), power(clear.knob, clear.ratio)]
    censored = [int(marks.ratio.isnull().where(marks.peak > 0.65, False).sum()) for _, marks in found.values()]
    assert measured[0] < -0.5 and slopes[0] < -0.2 and abs(slopes[1]) < 0.2 < slopes[2] < measured[1]
    caption = f"""Knobs of the disentangled network (three seeds each) that play parameters of the model. (a, b)
    Noise within classes limits what ICL can reach, as mu_icl does: up to {NOISE[1]:g} ICL persists for the whole
    run, above it ICL is transient, and the more so the more noise. (d, e) The number of classes makes the part of
    CIWL that is not shared long and slow, as the number of entries of d does: with few classes only CIWL is
    learned, with many ICL persists for the whole run. (c, f) How long ICL lasts, in units of its emergence,
    against the loss that it leaves (mu_icl over the unlearned loss in the model) and the number of classes
    (entries of d), relative to the network and the model of the other figures; powers of medians over seeds. (c)
    The network's lifetime falls with power {measured[0]:.1f} ({known[0]} values of the noise); that of the model
    (`tm.theory.lifetime`) falls too (power {slopes[0]:.1f}), but only where less is left than in any of these networks:
    over their range it is flat ({slopes[1]:+.1f}). (f) Both rise, the network faster: power {measured[1]:.1f} (from
    {known[1]} numbers of classes) against {slopes[2]:.1f}. Not drawn: {censored[0]} and {censored[1]} endless runs."""
    plotting.finish(__file__, fig, caption)


if __name__ == "__main__":
    main()
