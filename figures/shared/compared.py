"""The paper's experiments on the minimal model and on two networks, in the same words and units as the paper's own."""

import numpy as np
import xarray as xr

import toymodel as tm
from toymodel.network.curves import bump, crossing, curves, curves_there, landmarks, last, uses_paper
from toymodel.network.experiments import SWITCH, WINDOW
from toymodel.network.paper import SEEDS, paper_curve, paper_curves, paper_number

SMALL = (100, 200, 400, 800, 1600, 8000)
TAKEN = {  # the steps of CIWL-only runs whose second half is given to ICL-only data, and from which full data goes on
    "disentangled": {"icl_given": SMALL, "full_from": SMALL},
    "transformer": {"icl_given": WINDOW, "full_from": SWITCH},
}
ICL_DATA, CIWL_DATA = tm.Change(loss=lambda icl, ciwl, cost: icl), tm.Change(loss=lambda icl, ciwl, cost: ciwl)
NOT_RUN = "not trained"


def first(values: xr.DataArray, level: float = 0.75) -> xr.DataArray:
    """The first step at which accuracy passes a level; nan where it never does."""
    return crossing(values, level)


def in_words(steps: xr.DataArray, budget: int) -> str:
    """Steps of each seed, in the order of seeds."""
    return ", ".join(f"{int(step):,}" if step.notnull() else f"> {budget:,}" for step in steps)


def over(one: xr.DataArray, other: xr.DataArray, budget: int) -> str:
    """The ratio of each seed, in the order of seeds, with its bound where one of the two did not come."""
    bounds = {(False, True): ">", (True, False): "<", (True, True): "", (False, False): "?"}
    one, other = xr.align(one, other)
    ratios = one.fillna(budget) / other.fillna(budget)
    signs = [bounds[bool(x.notnull()), bool(y.notnull())] for x, y in zip(one, other, strict=True)]
    return ", ".join(f"{sign}{float(ratio):.2g}" for sign, ratio in zip(signs, ratios, strict=True))


def of_network(network: str) -> dict[str, xr.DataArray]:
    """Accuracies among the labels in context, of steps over the emergence of ICL (of CIWL for `taken`); an experiment
    that was not trained is left out."""
    names = {"data": ("icl_only", "icl"), "given": ("icl_given_end", "icl"), "matched": ("matched", "icl")}
    names |= {f"window_{t}": (f"icl_given_{t}", "icl") for t in TAKEN[network]["icl_given"]}
    names |= {f"peaks_{t}": (f"full_from_{t}", "flip") for t in TAKEN[network]["full_from"]}
    trained = curves(f"{network}_full")
    there = curves_there(f"{network}_full", f"{network}_ciwl_only", *(f"{network}_{of}" for of, _ in names.values()))

    def accuracy(of: xr.Dataset, evaluator: str) -> xr.DataArray:
        return of.accuracy_in_context.sel(evaluator=evaluator, drop=True)

    found = {name: accuracy(trained, name) for name in ("icl", "flip", "ciwl")}
    scale = float(landmarks(trained).emergence.median())
    learned = {
        name: accuracy(there[f"{network}_{of}"], evaluator)
        for name, (of, evaluator) in names.items()
        if f"{network}_{of}" in there
    }
    found |= {name: learned[name] for name in ("data", "given", "matched") if name in learned}
    found = {name: 2 * of.assign_coords(step=of.step / scale) - 1 for name, of in found.items()}
    if f"{network}_ciwl_only" in there:
        alone = float(first(accuracy(there[f"{network}_ciwl_only"], "ciwl")).mean())
        given, goes_on = TAKEN[network].values()
        window = {t: first(learned[f"window_{t}"]) / scale for t in given if f"window_{t}" in learned}
        peaks = {t: 2 * learned[f"peaks_{t}"].max("step") - 1 for t in goes_on if f"peaks_{t}" in learned}
        for name, rows in (("window", window), ("peaks", peaks)):
            if rows:
                share = xr.DataArray(np.array(list(rows)) / alone, dims="share")
                found[name] = xr.concat(list(rows.values()), "share").assign_coords(share=share)
    marks = landmarks(trained)
    found |= {"lifetime": marks.ratio, "peak": marks.peak, "bump": xr.DataArray(bump(trained))}
    if "swapped_accuracy_in_context" in trained:
        swapped = trained.swapped_accuracy_in_context.sel(evaluator="flip", drop=True)
        found["swap"] = 2 * swapped.max("kept") - 1
    return found


def of_paper() -> dict[str, xr.DataArray]:
    """The paper's networks: its six seeds, its main run (icl, ciwl, matched) and its losses on ICL-only data, as
    1 - loss / ln 2, which is 0 where one of the two labels is guessed and 1 where the task is solved."""
    uses_paper()
    marks = landmarks(paper_curves(*SEEDS))
    main = paper_curves("main")
    scale = landmarks(main).emergence.item()
    found = {name: main.accuracy_in_context.sel(evaluator=name, drop=True) for name in ("icl", "flip", "ciwl")}
    found["matched"] = paper_curves("matched exemplars").accuracy_in_context.sel(evaluator="flip", drop=True)
    found = {name: 2 * of.assign_coords(step=of.step / scale) - 1 for name, of in found.items()}
    for name, condition in (("data", "icl_only from scratch"), ("given", "icl_only, second half of the finished run")):
        loss = paper_curve(condition, "loss_train")
        loss = loss.assign_coords(step=loss.step / scale).expand_dims(seed=[0])
        found[name] = (1 - loss / np.log(2)).clip(min=-1)
    found |= {"lifetime": marks.ratio, "peak": marks.peak}
    return found | {"bump": xr.DataArray(1 + paper_number("bump of the CIWL loss"))}


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
    text = f"{float(known.median()):.2f}"
    if known.size > 1:
        text += f" ({float(known.min()):.2f} to {float(known.max()):.2f})"
    longest = f"> {budget:.1f}" if np.isfinite(budget) else "never"
    return text + (f"; {never} of {values.size} {longest}" if never else "")


def column(found: dict[str, xr.DataArray]) -> dict[str, str]:
    """What one of the systems shows, experiment by experiment."""
    icl, ciwl = (first(found[name], 0.5) for name in ("icl", "ciwl"))

    def ratio(name: str) -> str:
        if name not in found:
            return NOT_RUN
        one, full = xr.align(first(found[name], 0.5), icl)
        return said(one / full, float(found[name].step[-1] / full.median()))

    window, early, opens = NOT_RUN, NOT_RUN, None
    if "window" in found:
        opens = found["window"].notnull().mean("seed")
        works = opens.share[opens == 1]
        window = f"from {float(works.min()):.2g} on" if works.size else "at no time in all seeds"
        window += f", open at {float(opens.share[-1]):.2g}" if bool(opens[-1] == 1) else ", closes"
    if "peaks" in found:
        some = (found["peaks"] > (0.0 if "flip" in found else 0.5)).mean("seed")
        early = f"{float(some.share[some == 1].max()):.2g}" if bool((some == 1).any()) else "none"
    return {
        "full data: emergence of CIWL / of ICL": said(ciwl / icl, float(found["ciwl"].step[-1] / icl.median())),
        "highest flip": said(found["peak"]) if "peak" in found else "",
        "end of ICL / its emergence": said(found["lifetime"]),
        "bump: loss of CIWL / its lowest before": said(found["bump"]),
        "matched exemplars: ICL at the end": said(last(found["matched"])) if "matched" in found else NOT_RUN,
        "ICL-only data / full data": ratio("data"),
        "... with the second half of a finished run": ratio("given"),
        "... of CIWL-only, works": window,
        "layer swap (second half of the end): highest ICL": said(found["swap"]) if "swap" in found else NOT_RUN,
        "full training from CIWL-only: ICL until": early,
    }


def of_paper_column(found: dict[str, xr.DataArray]) -> dict[str, str]:
    """The same of the paper, where its numbers are read off and not computed from curves; M: million sequences."""
    unit = paper_number("flip up through 0.5")
    opens = paper_number("ICL-only data: ICL at", "second half of CIWL-only at 9.8 M") / unit
    given = paper_number("ICL-only data: below ln 2", "second half of the finished run")
    return column(found) | {
        "matched exemplars: ICL at the end": said(found["matched"].max("step")),
        "ICL-only data / full data": f"> {paper_number('ICL-only data: ICL not by', 'from scratch'):.0f}",
        "... with the second half of a finished run": f"{given:.2f}",
        "... of CIWL-only, works": f"from 3 to 10 emergences of ICL (then ICL at 2 to {opens:.0f} of them), closes",
        "layer swap (second half of the end): highest ICL": "",
        "full training from CIWL-only: ICL until": "1.8 emergences of ICL",
    }


def table(titles: list[str], columns: list[dict[str, str]]) -> str:
    """The columns as a Markdown table."""
    lines = [["", *titles], ["---"] * (len(titles) + 1)]
    return markdown(lines + [[row, *(of[row] for of in columns)] for row in columns[0]])


def markdown(lines: list[list[str]]) -> str:
    """The lines of a Markdown table, the second of which is its rule."""
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
