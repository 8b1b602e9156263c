"""The minimal model, the disentangled network and the transformer side by side: the paper's experiments on each.

Drawn from the curves in networks/, which `make networks` trains, and from runs of the model.
"""

from shared.compared import TAKEN, column, first, of_model, of_network, table

from toymodel import plotting
from toymodel.network.curves import band

TITLES = {"model": "minimal model", "disentangled": "disentangled network", "transformer": "transformer"}
FULL = {"icl": "icl", "flip": "loss", "ciwl": "ciwl", "matched": "shared"}
DATA = {"icl": "icl", "data": "loss", "given": "shared"}
NAMES = {"icl": "ICL, full data", "flip": "ICL against CIWL (flip)", "ciwl": "CIWL", "matched": "ICL, matched"}
NAMES |= {"data": "ICL-only data", "given": "and second half given"}


def main() -> None:
    found = {"model": of_model()} | {network: of_network(network) for network in TAKEN}
    network_data = [first(found[kind]["data"], 0.5) / first(found[kind]["icl"], 0.5) for kind in TAKEN]
    assert network_data[0].median() > 0.8 and network_data[1].isnull().sum() >= 2
    for kind, of in found.items():
        opens, last = of["window"].notnull().all("seed"), of["peaks"].isel(share=-1)
        assert opens[-1] and (kind == "disentangled" or not opens[0]) and (last < 0.5).all()
        assert of["lifetime"].median() > 1.5 and of["bump"].median() > 1.05
        assert float(of["matched"].isel(step=-1).median()) > 0.95

    fig, axes = plotting.new(4, 3, 7.2, 8.4, sharey="row")
    for column_of, (kind, of) in zip(axes.T, found.items(), strict=True):
        full, data, window, later = column_of
        if kind == "model":
            one = {name: of[name].sel(seed=[7]) for name in ("icl", "ciwl", "matched", "data", "given")}
            own = first(one["icl"], 0.5).item()
            of = of | {name: values.assign_coords(step=values.step / own) for name, values in one.items()}
        lowest = 0 if kind == "model" else -1
        for ax, drawn in ((full, FULL), (data, DATA)):
            for name in [name for name in drawn if name in of]:
                after = of[name].where(of[name].step > 0, drop=True)  # the axis is logarithmic
                band(ax, after.clip(min=lowest), after.step, drawn[name], label=NAMES[name])
        for ax, left, bottom in ((full, 0.1, -1.05), (data, 0.01, -0.15)):
            ax.axhline(0, color="0.7", lw=0.7, zorder=0)
            ax.set(xscale="log", xlim=(left, 20), ylim=(bottom, 1.05), xlabel="time / emergence of ICL")
        for ax, name, colour in ((window, "window", "shared"), (later, "peaks", "loss")):
            values = of[name].transpose("share", "seed")
            ax.plot(values.share, values, ".", ms=4, alpha=0.5, color=plotting.COLOURS[colour])
            ax.plot(values.share, values.median("seed", skipna=False), color=plotting.COLOURS[colour], lw=1)
            ax.set(xscale="log", xlim=(0.05, 20), xlabel="state taken at / emergence of CIWL")
        never = of["window"].isnull().sum("seed")
        for share, count in zip(of["window"].share.values, never.values, strict=True):
            if count:
                window.text(share, 15, f"{int(count)}", ha="center", va="center", color=plotting.COLOURS["loss"])
        window.set(yscale="log", ylim=(4e-3, 40))
        later.axhline(0, color="0.7", lw=0.7, zorder=0)
        later.set(ylim=(-1.05, 1.05))
        full.set_title(TITLES[kind])
    for ax, text in zip(axes[:, 0], ("learned", "learned", "emergence / on full data", "highest ICL"), strict=True):
        ax.set_ylabel(text)
    axes[0, 1].legend(loc="lower left", fontsize=6)
    axes[1, 2].legend(loc="upper left", fontsize=6)
    plotting.panel_letters(axes.flat)
    caption = """The paper's experiments on the published model (seed 7 in a and d, 12 seeds in g and j), the
    disentangled network and the transformer. Learned: 1 - loss / unlearned loss in the model, 2 x accuracy - 1
    among the labels in context in networks. (a to c) Full data, and matched exemplars. (d to f) ICL-only data
    from scratch, and with the second half (b and c) held at that of the end of training. (g to i) The same with
    the second half of a CIWL-only run, against the time at which it was taken; numbers: seeds that never learn
    ICL. (j to l) Highest ICL (flip in networks) in full training from a state of the CIWL-only run. In the table:
    median (lowest to highest) over seeds; times are over the emergence of ICL on full data, or (last three rows)
    of CIWL on CIWL-only data."""
    columns = table([TITLES[kind] for kind in found], [column(of) for of in found.values()])
    plotting.finish(__file__, fig, caption, columns)


if __name__ == "__main__":
    main()
