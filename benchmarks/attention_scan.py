"""Which settings of the model derived from attention have which findings of the paper: a scan over random settings.

    python benchmarks/attention_scan.py [SETTINGS]     goes on from what figures/data/attention_scan.nc holds

A setting is the noise within classes, the number of classes, layer 1's barrier, the rates of its logits and of the
codes, the scale of the start and the batch. The first RANDOM are drawn at random (RANGES), each of the others near one
of the ten that meet most findings so far. Of each, one draw of the start is trained on full data for ten times t_E, on
ICL-only data and CIWL-only data, grafted and switched (see attention_findings.py). MET says what a finding asks for.
The best one is a choice among many: attention_findings.py measures it on draws of the start that were not used here.
"""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from toymodel.files import write_netcdf
from toymodel.theory.attention import Order
from toymodel.theory.attention_data import Classes
from toymodel.theory.attention_flow import SECOND_HALF, Training, grafted, landmarks, predict, start, states

DATA = Path(__file__).parent.parent / "figures" / "data" / "attention_scan.nc"
RANDOM = 50
HORIZON, EVERY = 16_000, 100  # ICL emerges in this time, or the setting counts as one without
PARTS, LATER = 40, 10  # points in t_E, and how many t_E full data are followed; the others for half as long
RANGES = {  # lowest, highest, and whether even in the logarithm
    "noise": (0.8, 1.6, False),
    "classes": (1500, 12_000, True),
    "barrier": (1.0, 6.0, False),
    "logits": (0.01, 1.0, True),
    "factor": (0.01, 1.0, True),
    "scale": (0.003, 0.1, True),
    "batch": (16, 1024, True),
}
NEAR = 0.1  # of a range: the deviation of a setting from the one that it is near
STATES = (0.5, 2.0, 10.0)  # of a CIWL-only run, in units of its emergence
MET = {
    "ICL is first": lambda row: row["first"] > 0.5,
    "it is transient": lambda row: row["ratio"] < np.inf,
    "it ends within 5 emergences": lambda row: row["ratio"] < 5,
    "ICL alone: 4 times later": lambda row: row["alone"] >= 4,
    "half given: within 1.5 t_E": lambda row: row["given"] < 1.5,
    "graft of 10 emergences slower than of 2": lambda row: row["grafted at 10"] > 1.5 * row["grafted at 2"],
    "pretraining prolongs by 1.2": lambda row: row["switched lifetime"] > 1.2,
    "bump of 0.3 to 3 %": lambda row: (row["bump"] > 0.003) & (row["bump"] < 0.03),
    "no ICL from states of 2 emergences": lambda row: row["switched late"] < 0.55,
}
NAMES = ("when", "first", "peak", "ratio", "bump", "taken", "alone", "given")
NAMES += (*(f"grafted at {f:g}" for f in STATES[1:]), "switched", "switched lifetime")
NAMES += ("switched late", "switched late lifetime")


def learned(curves: xr.Dataset, evaluator: str = "icl") -> float:
    """The step at which an evaluator passes 3/4; infinite where it does not."""
    at = landmarks(curves.step.values, curves[evaluator].values, rise=0.75)["emergence"]
    return at if np.isfinite(at) else np.inf


def bump(curves: xr.Dataset, until: float, unlearned: float) -> float:
    """The largest rise of the loss of CIWL above its lowest value so far, in its unlearned loss."""
    loss = curves.loss_ciwl.values[curves.step.values <= until]
    return float(np.max(loss - np.minimum.accumulate(loss)) / unlearned)


def rounded(steps: float, every: int) -> int:
    """A number of steps that is a multiple of `every`."""
    return max(round(steps / every), 1) * every


def drawn(draw: np.random.Generator, near: dict[str, float] | None = None) -> dict[str, float]:
    """A random setting, everywhere or near another."""
    found = {}
    for name, (low, high, log) in RANGES.items():
        low, high = (np.log(low), np.log(high)) if log else (low, high)
        value = draw.uniform(low, high)
        if near is not None:
            middle = np.log(near[name]) if log else near[name]
            value = np.clip(middle + NEAR * (high - low) * draw.standard_normal(), low, high)
        found[name] = float(np.exp(value) if log else value)
    return found | {name: round(found[name]) for name in ("classes", "batch")}


def training(setting: dict[str, Any]) -> Training:
    """The training of a setting on full data."""
    rest = {name: setting[name] for name in ("barrier", "logits", "factor", "scale", "batch")}
    return Training(Classes(int(setting["classes"]), noise=setting["noise"]), **rest)


def row(full: Training, seed: int = 0) -> dict[str, float]:
    """The numbers behind MET, for one draw of the start; NaN for all but `when` where ICL does not emerge."""
    begin = start(full, seed)
    curves = predict(full, HORIZON, EVERY, begin, seed=seed)
    when, first = learned(curves), learned(curves) < learned(curves, "ciwl")
    if not (np.isfinite(when) and curves.flip.max() > 0.55):
        return {"when": np.inf}
    every = rounded(when / PARTS, 5)
    horizon, half = LATER * PARTS * every, LATER * PARTS // 2 * every
    curves, ends = states(full, horizon, every, begin, seed=seed)
    marks = landmarks(curves.step.values, curves.flip.values)
    life = marks["end"] - marks["emergence"]
    alone, ciwl = replace(full, kind="icl"), replace(full, kind="ciwl")
    held = replace(alone, held=SECOND_HALF)

    def until(training: Training, begin: Order) -> float:
        """When ICL is learned, over t_E; infinite where it is not by then."""
        return learned(predict(training, half, every, begin, seed=seed)) / when

    taken = learned(predict(ciwl, horizon, every, begin, seed=seed), "ciwl")
    found = {
        "when": when,
        "first": float(first),
        "peak": marks["peak"],
        "ratio": marks["end"] / marks["emergence"],
        "bump": bump(curves, 2 * when, float(np.log(full.classes.classes))),
        "taken": taken / when,
        "alone": min(until(alone, begin), LATER / 2),
        "given": until(held, grafted(begin, ends[horizon])),
    }
    if not np.isfinite(taken):
        return found
    fine = rounded(min(every, taken / 4), 5)
    at = {f: rounded(f * taken, fine) for f in STATES}
    kept = states(ciwl, max(at.values()), fine, begin, tuple(at.values()), seed=seed)[1]
    for f in STATES[1:]:
        found[f"grafted at {f:g}"] = until(held, grafted(begin, kept[at[f]]))
    for name, f in (("switched", 0.5), ("switched late", 2.0)):
        again = predict(full, horizon, every, kept[at[f]], seed=seed)
        of = landmarks(again.step.values, again.flip.values)
        found |= {name: of["peak"], f"{name} lifetime": (of["end"] - of["emergence"]) / life}
    return found


def met(row: dict[str, float]) -> dict[str, bool]:
    """Which of MET a row meets: none where ICL does not emerge, nor where a number is not known."""
    known = {name: np.nan for name in NAMES} | row
    return {name: bool(np.isfinite(row["when"]) and asked(known)) for name, asked in MET.items()}


def table(settings: list[dict[str, float]], rows: list[dict[str, float]]) -> xr.Dataset:
    """Settings and numbers by setting, and what of MET they meet."""
    both = {name: ("setting", [each[name] for each in settings]) for name in RANGES}
    both |= {name: ("setting", [each.get(name, np.nan) for each in rows]) for name in NAMES}
    meets = np.array([list(met(each).values()) for each in rows])
    return xr.Dataset(both | {"met": (("setting", "finding"), meets)}, {"finding": list(MET)})


def before() -> tuple[list[dict[str, float]], list[dict[str, float]]]:
    """The settings and rows that the file holds."""
    if not DATA.exists():
        return [], []
    kept = xr.load_dataset(DATA, engine="h5netcdf")
    of = [kept.isel(setting=i) for i in range(kept.sizes["setting"])]
    settings, rows = ([{name: float(one[name]) for name in names} for one in of] for names in (RANGES, NAMES))
    return settings, rows


def best() -> dict[str, float]:
    """The setting that meets most of MET; of several, that in which ICL alone takes longest."""
    settings, rows = before()
    return settings[max(range(len(rows)), key=lambda i: (sum(met(rows[i]).values()), rows[i]["alone"]))]


def main(count: int = 89) -> None:
    settings, rows = before()
    for i in range(len(rows), count):
        draw = np.random.default_rng(i)
        best = sorted(range(i), key=lambda j: sum(met(rows[j]).values()), reverse=True)[:10]
        settings.append(drawn(draw, settings[draw.choice(best)] if i >= RANDOM else None))
        rows.append(row(training(settings[-1])))
        said = {n: float(f"{v:.3g}") for n, v in (settings[-1] | rows[-1]).items()}
        print(i, sum(met(rows[-1]).values()), said, flush=True)
        write_netcdf(table(settings, rows), DATA)
    found = table(settings, rows)
    for name in MET:
        print(f"{name:40s} {int(found.met.sel(finding=name).sum())} of {int(np.isfinite(found.when).sum())} with ICL")


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
