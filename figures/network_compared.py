"""The minimal model, the disentangled network and the transformer side by side: the paper's experiments on each.

Drawn from the curves in networks/, which `make networks` trains, and from runs of the model.
"""

import numpy as np
import xarray as xr

import toymodel as tm
from toymodel import plotting
from toymodel.network.curves import band, curves, landmarks

TITLES = {"model": "minimal model", "disentangled": "disentangled network", "transformer": "transformer"}
TAKEN = {"disentangled": (100, 200, 400, 800, 1600, 8000), "transformer": (800, 2000, 4000, 16_000)}
ICL_DATA, CIWL_DATA = tm.Change(loss=lambda icl, ciwl, cost: icl), tm.Change(loss=lambda icl, ciwl, cost: ciwl)


def first(values: xr.DataArray, level: float = 0.75) -> xr.DataArray:
    """The first step at which accuracy is above a level; nan where it never is."""
    return values.step.where(values > level).min("step")


def of_network(network: str) -> dict[str, xr.DataArray]:
    """Accuracies among the labels in context, of steps over the emergence of ICL (of CIWL for `taken`)."""

    def accuracy(name: str, evaluator: str) -> xr.DataArray:
        return curves(f"{network}_{name}").accuracy_in_context.sel(evaluator=evaluator, drop=True)

    marks = landmarks(curves(f"{network}_full"))
    full = accuracy("full", "icl")
    scale, alone = float(first(full).mean()), first(accuracy("ciwl_only", "ciwl")).mean()
    found = {"icl": full, "flip": accuracy("full", "flip"), "ciwl": accuracy("full", "ciwl")}
    found |= {"matched": accuracy("matched", "icl"), "data": accuracy("icl_only", "icl")}
    found |= {"given": accuracy("icl_given_end", "icl")}
    found = {name: 2 * of.assign_coords(step=of.step / scale) - 1 for name, of in found.items()}
    share = xr.DataArray(list(TAKEN[network]) / alone.values, dims="share")
    window = [first(accuracy(f"icl_given_{taken}", "icl")) / scale for taken in TAKEN[network]]
    peaks = [2 * accuracy(f"full_from_{taken}", "flip").max("step") - 1 for taken in TAKEN[network]]
    for name, rows in (("window", window), ("peaks", peaks)):
        found[name] = xr.concat(rows, "share").assign_coords(share=share)
    return found | {"lifetime": marks.ratio, "bump": marks.bump}


def of_model() -> dict[str, xr.DataArray]:
    """1 - loss / unlearned loss of each mechanism, in the same words."""
    model = tm.coopetition(alpha=0.1, mu_icl=0.1)
    start = tm.paper_start(model, seeds=range(12))

    def learned(runs: xr.Dataset, name: str = "icl") -> xr.DataArray:
        return (1 - runs[f"loss_{name}"] / runs[f"unlearned_{name}"]).swap_dims(time="step")

    def run(start: xr.Dataset, *acts: object, steps: int = 16_000, **parameters: float) -> xr.Dataset:
        return tm.descend(model, start, steps, every=10, interventions=acts, **parameters)

    full, alone = run(start), run(start, CIWL_DATA, steps=80_000)
    when = tm.measure(alone).emergence.sel(mechanism="ciwl", drop=True)
    shares = xr.DataArray(2.0 ** np.arange(-4, 3), dims="share", coords={"share": 2.0 ** np.arange(-4, 3)})
    taken = alone[["overlap", "residual", "target_norm"]].sel(time=when * shares, method="nearest")
    taken = taken.drop_vars(["time", "step"])
    end = full.isel(time=-1, drop=True).drop_vars("step", errors="ignore")
    runs = {"icl": learned(full), "ciwl": learned(full, "ciwl"), "matched": learned(run(start, mu_icl=0.0))}
    runs |= {"data": learned(run(start, ICL_DATA))}
    runs |= {"given": learned(run(start, ICL_DATA, tm.Clamp("bc", like=end)))}
    scale = float(tm.measure(full).emergence.sel(mechanism="icl").median())
    found = {name: of.assign_coords(step=of.step / scale) for name, of in runs.items()}
    toy = tm.measure(full).sel(mechanism="icl", drop=True)
    bump = 1 + (tm.measure(full).bump / full.unlearned_ciwl).sel(mechanism="ciwl", drop=True)
    found |= {"lifetime": (1 + toy.lifetime / toy.emergence).where(~toy.lasts), "bump": bump}
    window = tm.measure(run(start, ICL_DATA, tm.Clamp("bc", like=taken))).emergence.sel(mechanism="icl", drop=True)
    return found | {"window": window / scale, "peaks": learned(run(taken)).max("step")}


def said(values: xr.DataArray, budget: float = np.nan) -> str:
    """Median, lowest and highest of a ratio over seeds, those that never come counted."""
    never, known = int(values.isnull().sum()), values.dropna("seed")
    if not known.size:
        return f"> {budget:.1f} in all {never}"
    text = f"{float(known.median()):.2f} ({float(known.min()):.2f} to {float(known.max()):.2f})"
    return text + (f"; {never} of {values.size} never" if never else "")


def column(found: dict[str, xr.DataArray]) -> dict[str, str]:
    """What one of the three shows, experiment by experiment."""
    icl, ciwl, data, given = (first(found[name], 0.5) for name in ("icl", "ciwl", "data", "given"))
    opens = found["window"].notnull().mean("seed")
    early = (found["peaks"] > (0.0 if "flip" in found else 0.5)).mean("seed")
    return {
        "learned alone: CIWL / ICL": said(ciwl / icl),
        "end of ICL / its emergence": said(found["lifetime"]),
        "bump: loss of CIWL / its lowest before": said(found["bump"]),
        "matched exemplars: ICL at the end": said(found["matched"].isel(step=-1)),
        "ICL-only data / full data": said(data / icl),
        "... with the second half of a finished run": said(given / icl),
        "... of CIWL-only, works in all seeds from": f"{float(opens.share[opens == 1].min()):.2g}",
        "... and no longer after": "never" if bool(opens[-1] == 1) else "closes",
        "full training from CIWL-only: ICL until": f"{float(early.share[early == 1].max()):.2g}",
    }


def main() -> None:
    found = {"model": of_model()} | {network: of_network(network) for network in TAKEN}
    columns = {kind: column(of) for kind, of in found.items()}
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
        for ax, name, colour, style in (
            (full, "icl", "icl", {}),
            (full, "flip", "loss", {}),
            (full, "ciwl", "ciwl", {}),
            (full, "matched", "icl", {"ls": ":", "label": "ICL, matched"}),
            (data, "icl", "icl", {"label": "ICL, full data"}),
            (data, "data", "loss", {"label": "ICL-only data"}),
            (data, "given", "shared", {"label": "and second half given"}),
        ):
            if name in of:
                label = {"icl": "ICL", "ciwl": "CIWL", "flip": "ICL against CIWL (flip)"}.get(name, name)
                band(
                    ax,
                    of[name].clip(min=0 if kind == "model" else -1),
                    of[name].step,
                    colour,
                    **{"label": label} | style,
                )
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
                window.text(share, 8, f"{int(count)}", ha="center", va="center", color=plotting.COLOURS["loss"])
        window.set(yscale="log", ylim=(4e-3, 15))
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
    rows = ["| | " + " | ".join(TITLES[kind] for kind in columns) + " |", "|---" * (len(columns) + 1) + "|"]
    rows += [f"| {name} | " + " | ".join(of[name] for of in columns.values()) + " |" for name in columns["model"]]
    plotting.finish(__file__, fig, caption, "\n".join(rows))


if __name__ == "__main__":
    main()
