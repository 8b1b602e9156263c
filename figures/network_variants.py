"""Other networks and other data: classes, exemplars, perceptrons, positions, layers, and attention that is forbidden.

Drawn from the curves in networks/, which `make networks` trains, and from those read off the paper (networks/paper/).
"""

from shared.compared import markdown
from shared.networks import at

from toymodel import plotting
from toymodel.network.curves import curves_there, landmarks, uses_paper
from toymodel.network.paper import paper_curves, paper_number

# the experiment, what it is, the paper's curve or what the paper says where it draws none
VARIANTS = {
    "full": ("12,800 x 20", "main"),
    "exemplars_5": ("12,800 x 5", "12800 classes x 5"),
    "classes_1600": ("1,600 x 20", "1600 classes x 20"),
    "mlp": ("with a perceptron", "12800 classes x 20, MLP"),
    "heads_ablated": ("heads 1, 4, 7 ablated", None),
    "icl_blocked": ("ICL blocked", None),
    "ciwl_blocked": ("CIWL blocked", None),
    "one_layer": ("one layer", None),
    "sinusoidal": ("sinusoidal positions", None),
    "rotary": ("rotary positions", None),
    "full_given_layer1_end": ("layer 1 held at its end", None),
    "full_given_layer2_end": ("layer 2 held at its end", None),
    "noise_0.7": ("noise 0.70", None),
    "noise_0.75": ("noise 0.75", None),
}
PEAKS = {"mlp": "12800 classes x 20, MLP", "heads_ablated": "heads 1 4 7 of layer 1 ablated"}


def main() -> None:
    uses_paper()
    found = curves_there(*(f"transformer_{name}" for name in VARIANTS))
    there = {name.removeprefix("transformer_"): of for name, of in found.items()}
    unit = float(landmarks(there["full"]).emergence.median())
    paper_unit = landmarks(paper_curves("main")).emergence.item()
    shown = [name for name, (_, condition) in VARIANTS.items() if condition or name in there]
    high = -(-len(shown) // 5)
    fig, axes = plotting.new(high, 5, 7.4, 0.4 + 1.7 * high, sharex=True, sharey=True, squeeze=False)
    panels, rows, peaks = dict(zip(shown, axes.flat, strict=False)), [], {}
    for name, (title, condition) in VARIANTS.items():
        ax = panels.get(name, axes[0, 0])  # without a panel nothing is drawn
        cells = ["", "", "not trained", ""]
        if condition:
            marks = landmarks(paper := paper_curves(condition)).isel(seed=0)
            for evaluator, colour in (("flip", "k"), ("ciwl", plotting.COLOURS["ciwl"])):
                ax.plot(paper.step / paper_unit, at(paper, evaluator).isel(seed=0), "--", lw=1, color=colour)
            cells[:2] = f"{float(marks.peak):.2f}", f"{float(marks.ratio):.1f}".replace("nan", "")
            peaks[name] = float(marks.peak)
        if name in PEAKS:  # there is no curve, or one too coarse for its peak
            cells[0] = f"{paper_number('flip peaks', PEAKS[name]):.2f}"
        if (of := there.get(name)) is not None:
            for evaluator, colour in (("flip", "icl"), ("ciwl", "ciwl")):
                seeds = at(of, evaluator).transpose("step", "seed")
                ax.plot(of.step / unit, seeds, lw=1, alpha=0.7, color=plotting.COLOURS[colour])
            cells[2] = ", ".join(f"{x:.2f}" for x in landmarks(of).peak.values)
            cells[3] = ", ".join(f"{x:.1f}" for x in landmarks(of).ratio.dropna("seed").values)
        rows.append([title, *cells])
    for place, ax in enumerate(axes.flat):
        ax.set_visible(place < len(shown))
        ax.set_title(VARIANTS[shown[min(place, len(shown) - 1)]][0], fontsize=7)
        ax.axhline(0.5, color="0.7", lw=0.7, zorder=0)
    axes[0, 0].set(xscale="log", xlim=(0.2, 40), ylim=(0, 1.03))
    fig.supxlabel("time / emergence of ICL", fontsize=8)
    fig.supylabel("flip, ciwl", fontsize=8)
    plotting.panel_letters(axes.flat)
    assert peaks["mlp"] > 0.7 > 0.5 > peaks["classes_1600"]
    caption = """Other data and networks: flip (ours blue, paper black) and ciwl (red), each seed; dashed, the
    paper. Time over the emergence of ICL in the main run of the paper and of ours. ICL (CIWL) blocked:
    in layer 1 labels may not look at the exemplar before them (at themselves). Without ICL the highest flip is that of
    chance at the start."""
    head = ["", *(f"{of}: {what}" for of in ("paper", "ours, by seed") for what in ("highest flip", "end / emergence"))]
    plotting.finish(__file__, fig, caption, markdown([head, ["---"] * 5, *rows]))


if __name__ == "__main__":
    main()
