"""The paper's experiments on the minimal model and on two networks, in the same words and units."""

import numpy as np
import xarray as xr

import toymodel as tm
from toymodel.network.curves import bump, curves, landmarks

TAKEN = {"disentangled": (100, 200, 400, 800, 1600, 8000), "transformer": (800, 2000, 4000, 16_000, 60_000)}
ICL_DATA, CIWL_DATA = tm.Change(loss=lambda icl, ciwl, cost: icl), tm.Change(loss=lambda icl, ciwl, cost: ciwl)


def first(values: xr.DataArray, level: float = 0.75) -> xr.DataArray:
    """The first step at which accuracy is above a level; nan where it never is."""
    return values.step.where(values > level).min("step")


def in_words(steps: xr.DataArray, budget: int) -> str:
    """Steps of each seed, in the order of seeds."""
    return ", ".join(f"{int(step):,}" if step.notnull() else f"> {budget:,}" for step in steps)


def over(one: xr.DataArray, other: xr.DataArray, budget: int) -> str:
    """The ratio of each seed, in the order of seeds, with its bound where one of the two did not come."""
    bounds = {(False, True): ">", (True, False): "<", (True, True): "", (False, False): "?"}
    ratios = one.fillna(budget) / other.fillna(budget)
    signs = [bounds[bool(x.notnull()), bool(y.notnull())] for x, y in zip(one, other, strict=True)]
    return ", ".join(f"{sign}{float(ratio):.2g}" for sign, ratio in zip(signs, ratios, strict=True))


def of_network(network: str) -> dict[str, xr.DataArray]:
    """Accuracies among the labels in context, of steps over the emergence of ICL (of CIWL for `taken`)."""

    def accuracy(name: str, evaluator: str) -> xr.DataArray:
        return curves(f"{network}_{name}").accuracy_in_context.sel(evaluator=evaluator, drop=True)

    trained = curves(f"{network}_full")
    marks = landmarks(trained)
    full = accuracy("full", "icl")
    scale, alone = float(first(full).mean()), first(accuracy("ciwl_only", "ciwl")).mean()
    found = {"icl": full, "flip": accuracy("full", "flip"), "ciwl": accuracy("full", "ciwl")}
    found |= {"matched": accuracy("matched", "icl"), "data": accuracy("icl_only", "icl")}
    found |= {"given": accuracy("icl_given_end", "icl")}
    swapped = trained.swapped_accuracy_in_context.sel(evaluator="flip", drop=True)
    found = {name: 2 * of.assign_coords(step=of.step / scale) - 1 for name, of in found.items()}
    share = xr.DataArray(list(TAKEN[network]) / alone.values, dims="share")
    window = [first(accuracy(f"icl_given_{taken}", "icl")) / scale for taken in TAKEN[network]]
    peaks = [2 * accuracy(f"full_from_{taken}", "flip").max("step") - 1 for taken in TAKEN[network]]
    for name, rows in (("window", window), ("peaks", peaks)):
        found[name] = xr.concat(rows, "share").assign_coords(share=share)
    return found | {"lifetime": marks.ratio, "bump": xr.DataArray(bump(trained)), "swap": 2 * swapped.max("kept") - 1}


def of_model() -> dict[str, xr.DataArray]:
    """1 - loss / unlearned loss of each mechanism, in the same words."""
    model = tm.coopetition(alpha=0.1, mu_icl=0.1)
    start = tm.paper_start(model, seeds=range(12))

    def learned(runs: xr.Dataset, name: str = "icl") -> xr.DataArray:
        values = 1 - runs[f"loss_{name}"] / runs[f"unlearned_{name}"]
        return values.swap_dims(time="step") if "time" in values.dims else values

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
    rise = 1 + (tm.measure(full).bump / full.unlearned_ciwl).sel(mechanism="ciwl", drop=True)
    found |= {"lifetime": (1 + toy.lifetime / toy.emergence).where(~toy.lasts), "bump": rise}
    found["swap"] = learned(tm.descend(model, with_last_half(full, "bc"), 1).isel(time=0)).max("taken")
    window = tm.measure(run(start, ICL_DATA, tm.Clamp("bc", like=taken))).emergence.sel(mechanism="icl", drop=True)
    return found | {"window": window / scale, "peaks": learned(run(taken)).max("step")}


def with_last_half(runs: xr.Dataset, shared: str) -> xr.Dataset:
    """States at recorded times (`taken`), with the shared vectors as they are at the end: the layer swap."""
    state = runs[["overlap", "residual", "target_norm"]].thin(time=10).rename(time="taken").drop_vars("step")
    own = ~state.vector.isin(list(shared))
    return state.assign({x: state[x].where(own, state[x].isel(taken=-1)) for x in ("overlap", "residual")})


def said(values: xr.DataArray, budget: float = np.nan) -> str:
    """Median, lowest and highest of a ratio over seeds, those that never come counted; or one number."""
    if not values.ndim:
        return f"{float(values):.2f}"
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
        "full data: emergence of CIWL / of ICL": said(ciwl / icl),
        "end of ICL / its emergence": said(found["lifetime"]),
        "bump: loss of CIWL / its lowest before": said(found["bump"]),
        "matched exemplars: ICL at the end": said(found["matched"].isel(step=-1)),
        "ICL-only data / full data": said(data / icl),
        "... with the second half of a finished run": said(given / icl),
        "... of CIWL-only, works in all seeds from": f"{float(opens.share[opens == 1].min()):.2g}",
        "... and no longer after": f"open at {float(opens.share[-1]):.2g}" if bool(opens[-1] == 1) else "closes",
        "layer swap (second half of the end): highest ICL": said(found["swap"]),
        "full training from CIWL-only: ICL until": f"{float(early.share[early == 1].max()):.2g}",
    }


def table(titles: list[str], columns: list[dict[str, str]]) -> str:
    """The columns as a Markdown table."""
    lines = [["", *titles], ["---"] * (len(titles) + 1)]
    lines += [[row, *(of[row] for of in columns)] for row in columns[0]]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
