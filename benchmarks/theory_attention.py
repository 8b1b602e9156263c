"""The theory of the disentangled network (`toymodel.theory.attention`) against trained ones; nothing is fitted.

    python benchmarks/theory_attention.py     reads figures/data/attention_networks.nc (see attention_networks.py),
                                              prints all errors and writes figures/data/theory_attention.nc

Of a curve of flip: emergence (its last crossing of 0.55 before the highest value), that value (peak), and the end (its
first crossing of 1/2 after it), in the network of the mean over seeds. On data that allow one strategy only, emergence
is where its own evaluator crosses 3/4.
"""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from attention_networks import BASE, MEASURES, SETTINGS, TRAININGS, Case, Setting, cases, read

from toymodel.files import write_netcdf
from toymodel.theory.attention_data import Classes
from toymodel.theory.attention_flow import (
    CODES,
    SECOND_HALF,
    Training,
    grafted,
    landmarks,
    predict,
    start,
    states,
    without_codes,
)

ROOT = Path(__file__).parent.parent
DATA = ROOT / "figures" / "data" / "theory_attention.nc"
BARRIER = replace(BASE, barrier=4.0, factor=0.04)
KEPT = {  # curves of the repository: of toymodel train NAME
    "disentangled_barrier_icl_only": "icl_only",
    "disentangled_barrier_ciwl_blocked": "blocked",
    "disentangled_barrier_icl_given_end": "grafted",
    "disentangled_barrier": "full",
}
LANDMARKS = ("emergence", "peak", "end")
RESPONSE = {  # what the theory has beyond a linear lookup, left out
    "all of it": (),
    "no memory of exemplars (U, recall)": ("U", "recall"),
    "nor a response of classes (B, along)": ("U", "recall", "B", "along"),
}
EVALUATOR = {"matched": ("flip", 0.55), "ciwl_only": ("ciwl", 0.75)}  # else icl, 0.75


def training_of(setting: Setting, name: str = "full") -> Training:
    """The declaration of the theory for a training of a setting."""
    classes = Classes(setting.classes, setting.features, setting.noise, setting.exemplars)
    options = TRAININGS.get(name, {})
    held = SECOND_HALF if "given" in options else ()
    if "without_codes" in options:
        held = CODES
    kind, matched = options.get("kind", "full"), options.get("matched", False)
    return Training(classes, setting.barrier, factor=setting.factor, kind=kind, matched=matched, held=held)


def theory(case: Case, draws: int = 1) -> xr.Dataset:
    """The predicted curves of a case, the mean over draws of the start and of the sampling noise."""
    return xr.concat([theory_of(case, seed) for seed in range(draws)], "draw").mean("draw")


def theory_of(case: Case, seed: int) -> xr.Dataset:
    """The predicted curves of a case for one draw."""
    training = training_of(case.setting, case.training)
    begin = start(training, seed)
    if case.training == "blocked":
        begin = without_codes(begin)
    if case.training == "grafted":
        steps = 8000 if case.setting.factor == 1 else 12_000
        full = training_of(case.setting)
        _, ends = states(full, steps, 100, start(full, seed), seed=seed)
        begin = grafted(begin, ends[steps])
    return predict(training, case.steps, case.every, begin, seed=seed)


def of_repository() -> dict[Case, np.ndarray]:
    """The network with the higher barrier and slow codes, as the repository keeps it; only the evaluators' rows."""
    found = {}
    for name, training in KEPT.items():
        kept = xr.load_dataset(ROOT / "networks" / f"{name}.nc", engine="h5netcdf")
        step = kept.step.values
        case = Case(BARRIER, training, int(step[-1]), int(step[1] - step[0]), kept.sizes["seed"])
        rows = np.full((case.seeds, len(step), len(MEASURES)), np.nan)
        for i, evaluator in enumerate(MEASURES[:3]):
            rows[:, :, i] = kept.accuracy_in_context.sel(evaluator=evaluator).transpose("seed", "step").values
        found[case] = rows
    return found


def flip_row(case: Case, rows: np.ndarray) -> tuple[dict[str, Any], np.ndarray]:
    """Landmarks of network and theory, how well the whole curve of flip is predicted, and the prediction."""
    predicted, measured = theory(case), rows[:, :, MEASURES.index("flip")]
    flip, mean = predicted.flip.values, measured.mean(0)
    step = predicted.step.values
    ours, theirs = landmarks(step, flip), landmarks(step, mean)
    row = {f"theory_{n}": ours[n] for n in LANDMARKS} | {f"network_{n}": theirs[n] for n in LANDMARKS}
    row["R2"] = 1 - np.sum((flip - mean) ** 2) / np.sum((mean - mean.mean()) ** 2)
    return row, flip


def errors(rows: list[dict[str, Any]]) -> dict[str, float]:
    """Medians over settings: relative errors of the times, absolute error of the peak, R2."""
    table = {name: np.array([row[name] for row in rows]) for name in rows[0]}
    found = {}
    for n in ("emergence", "end"):
        known = np.abs(table[f"theory_{n}"] / table[f"network_{n}"] - 1)
        found[n] = np.median(known[np.isfinite(known)]) if np.isfinite(known).any() else np.nan
    found["peak"] = np.median(np.abs(table["theory_peak"] - table["network_peak"]))
    found["R2"] = np.median(table["R2"])
    return {name: float(value) for name, value in found.items()}


def other_row(case: Case, rows: np.ndarray) -> tuple[float, float]:
    """Emergence on other data: of the theory, of the network."""
    evaluator, level = EVALUATOR.get(case.training, ("icl", 0.75))
    predicted = theory(case)
    step, mean = predicted.step.values, rows[:, :, MEASURES.index(evaluator)].mean(0)
    both = (predicted[evaluator].values, mean)
    return tuple(landmarks(step, curve, rise=level)["emergence"] for curve in both)  # pyright: ignore


def exponent(x: list[float], y: list[float]) -> float:
    """The slope of log y against log x where y is known."""
    known = np.isfinite(y)
    if known.sum() < 2:
        return np.nan
    return float(np.polyfit(np.log(np.array(x)[known]), np.log(np.array(y)[known]), 1)[0])


def laws(found: dict[Case, dict[str, Any]]) -> dict[str, float]:
    """Exponents of the lifetime ratio end / emergence in noise and in classes, network and theory, where both end."""
    result = {}
    for name in ("noise", "classes"):
        other = [n for n in ("classes", "noise", "features", "exemplars", "barrier") if n != name]
        along = [
            (getattr(case.setting, name), row)
            for case, row in found.items()
            if case.setting.factor == 1 and all(getattr(case.setting, n) == getattr(BASE, n) for n in other)
        ]
        both = [(x, r) for x, r in along if np.isfinite(r["theory_end"]) and np.isfinite(r["network_end"])]
        for who in ("network", "theory"):
            ratio = [row[f"{who}_end"] / row[f"{who}_emergence"] for _, row in both]
            result[f"{who}_{name}"] = exponent([x for x, _ in both], ratio)
        result[f"points_{name}"] = len(both)
    return result


def without(held: tuple[str, ...], noise: bool, rows: np.ndarray) -> dict[str, float]:
    """The network of the figures with parts of the theory left out."""
    training = Training(held=held, batch=64 if noise else 10**9)
    case = Case(BASE)
    predicted = predict(training, case.steps, case.every)
    flip, mean = predicted.flip.values, rows[:, :, MEASURES.index("flip")].mean(0)
    of = landmarks(predicted.step.values, flip)
    return of | {"R2": float(1 - np.sum((flip - mean) ** 2) / np.sum((mean - mean.mean()) ** 2))}


def text(row: dict[str, Any]) -> str:
    return "  ".join(f"{name} {value:.4g}" for name, value in row.items())


def main() -> None:
    kept = of_repository() | read()
    print(
        f"{sum(case in kept for case in cases())} of {len(list(cases()))} trainings of attention_networks.py are there"
    )
    both = {case: flip_row(case, rows) for case, rows in kept.items() if case.training == "full"}
    full, predicted = ({case: pair[i] for case, pair in both.items()} for i in (0, 1))
    print("full data, theory and the mean over seeds of the network:")
    for case, row in full.items():
        print(f"    {case.setting}", text(row), flush=True)
    chosen = [row for case, row in full.items() if case.setting in [*SETTINGS, BARRIER]]
    medians = errors(chosen)
    print(f"medians of errors over {len(chosen)} settings:", text(medians))
    print("by dimension:")
    for case, row in full.items():
        if _only(case.setting, "features"):
            print(f"    D = {case.setting.features:4d}", text(errors([row])))
    law = laws(full)
    print("exponents of end / emergence:", text(law))
    print("parts left out:")
    for name, held in RESPONSE.items():
        print(f"    {name:40s}", text(without(held, True, kept[Case(BASE)])))
    print(f"    {'no sampling noise':40s}", text(without((), False, kept[Case(BASE)])))

    print("other data, emergence by theory and network:")
    other: dict[Case, tuple[float, float]] = {}
    for case, rows in kept.items():
        if case.training != "full":
            other[case] = other_row(case, rows)
            print(f"    {case.training:10s} {case.setting}  {other[case][0]:.1f} {other[case][1]:.1f}", flush=True)
    ratio = {name: [a / b - 1 for c, (a, b) in other.items() if c.training == name] for name in TRAININGS}
    away = {name: float(np.nanmedian(np.abs(values))) for name, values in ratio.items() if np.isfinite(values).any()}
    agree = [np.isnan(a) == np.isnan(b) for a, b in other.values()]
    print("medians of errors:", text(away), f"; never where never: {sum(agree)} of {len(agree)}")
    save(
        full,
        {case: (predicted[case], rows[:, :, 1].mean(0)) for case, rows in kept.items() if case in predicted},
        other,
        medians | law,
        away,
    )


def _only(setting: Setting, name: str) -> bool:
    """Whether a setting differs from the base in this only."""
    return all(getattr(setting, n) == getattr(BASE, n) for n in BASE.__dataclass_fields__ if n != name)


def save(
    full: dict[Case, dict[str, Any]],
    curves: dict[Case, tuple[np.ndarray, np.ndarray]],
    other: dict[Case, tuple[float, float]],
    medians: dict[str, float],
    away: dict[str, float],
) -> None:
    """One file for the derivation and the figures."""
    names = BASE.__dataclass_fields__
    columns: dict[str, Any] = {n: ("case", [getattr(c.setting, n) for c in full]) for n in names}
    columns |= {n: ("case", [row[n] for row in full.values()]) for n in next(iter(full.values()))}
    columns |= {f"other_{n}": ("other", [getattr(c.setting, n) for c in other]) for n in names}
    points = max(len(ours) for ours, _ in curves.values())
    for i, who in enumerate(("theory", "network")):
        padded = [np.pad(pair[i], (0, points - len(pair[i])), constant_values=np.nan) for pair in curves.values()]
        columns[f"{who}_flip"] = (("case", "point"), np.array(padded, np.float32))
    columns["every"] = ("case", [case.every for case in full])
    columns["other_training"] = ("other", [c.training for c in other])
    for i, who in enumerate(("theory", "network")):
        columns[f"other_{who}"] = ("other", [pair[i] for pair in other.values()])
    count = sum(case.setting in [*SETTINGS, BARRIER] for case in full)
    attrs = {"settings": count} | medians | {f"error_{n}": v for n, v in away.items()}
    write_netcdf(xr.Dataset(columns, attrs=attrs), DATA)


if __name__ == "__main__":
    main()
