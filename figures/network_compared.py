"""The paper's experiments side by side: its networks, the minimal model, the disentangled network, our transformer.

Drawn from the curves in networks/, which `make networks` trains, from those read off the paper (networks/paper/), and
from runs of the model.
"""

from shared.compared import column, first, of_model, of_network, of_paper, of_paper_column, table

from toymodel import plotting
from toymodel.network.curves import band

TITLES = {"paper": "the paper's networks", "model": "minimal model", "disentangled": "disentangled network"}
TITLES |= {"transformer": "our transformer"}
FULL = {"icl": "icl", "flip": "loss", "ciwl": "ciwl", "matched": "shared"}
DATA = {"icl": "icl", "data": "loss", "given": "shared"}
NAMES = {"icl": "ICL, full data", "flip": "ICL against CIWL (flip)", "ciwl": "CIWL", "matched": "ICL, matched"}
NAMES |= {"data": "ICL-only data", "given": "and second half given"}


def main() -> None:
    found = {"paper": of_paper(), "model": of_model()} | {
        kind: of_network(kind) for kind in ("disentangled", "transformer")
    }
    fig, axes = plotting.new(2, 4, 7.4, 4.2, sharey="row")
    for (full, data), (kind, of) in zip(axes.T, found.items(), strict=True):
        if kind == "model":
            one = {name: of[name].sel(seed=[7]) for name in ("icl", "ciwl", "matched", "data", "given")}
            own = first(one["icl"], 0.5).item()
            of = of | {name: values.assign_coords(step=values.step / own) for name, values in one.items()}
        for ax, drawn in ((full, FULL), (data, DATA)):
            for name in [name for name in drawn if name in of]:
                after = of[name].where(of[name].step > 0, drop=True)  # the axis is logarithmic
                band(ax, after.clip(min=0 if kind == "model" else -1), after.step, drawn[name], label=NAMES[name])
        for ax, left, bottom in ((full, 0.1, -1.05), (data, 0.01, -0.15)):
            ax.axhline(0, color="0.7", lw=0.7, zorder=0)
            ax.set(xscale="log", xlim=(left, 20), ylim=(bottom, 1.05), xlabel="time / emergence of ICL")
        full.set_title(TITLES[kind])
    for ax in axes[:, 0]:
        ax.set_ylabel("learned")
    axes[0, 0].legend(loc="lower left", fontsize=6)
    axes[1, 3].legend(*axes[1, 2].get_legend_handles_labels(), loc="upper left", fontsize=6)
    plotting.panel_letters(axes.flat)
    columns = [of_paper_column(found["paper"])] + [column(of) for kind, of in found.items() if kind != "paper"]
    assert 1.8 < float(found["paper"]["lifetime"].median()) < 2.8 and (found["disentangled"]["peak"] > 0.8).all()
    caption = """The paper's experiments on its own networks (curves read off its figures), the published model
    (seed 7; 12 seeds in the table), the disentangled network and our transformer. Learned: 2 x accuracy - 1 among
    the labels in context in networks, 1 - loss / unlearned loss in the model, 1 - loss / ln 2 for the paper's
    ICL-only data. (a to d) Full data, and matched exemplars. (e to h) ICL-only data from scratch, and with the
    second half held at that of the end of training on full data. In the table: median (lowest to highest) over
    seeds; times are over the emergence of ICL on full data; "> x" counts the seeds in which it did not come by x
    emergences; a time of the CIWL-only run is over the emergence of CIWL there (in the paper: of ICL on full data)."""
    plotting.finish(__file__, fig, caption, table([TITLES[kind] for kind in found], columns))


if __name__ == "__main__":
    main()
