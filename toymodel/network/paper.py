"""The paper's own curves, in the form of ours, so that the same functions measure both.

They were read off the authors' figures (networks/paper/README.md) and are reference data: nothing here is computed by
this package. Steps are sequences / 32, the paper's batch, so that emergence and end are compared in one unit.
"""

import csv
from pathlib import Path

import numpy as np
import xarray as xr

FOLDER = Path("networks/paper")
BATCH = 32
SEEDS = tuple(f"init seed {i}, data seed {d}" for i, d in ((5, 2), (5, 3), (5, 4), (6, 2), (6, 3), (7, 2)))


def _rows(name: str, folder: Path) -> list[dict[str, str]]:
    path = folder / name
    if not path.exists():
        raise FileNotFoundError(f"{path} is missing; it comes with the repository")
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def paper_curve(condition: str, quantity: str, folder: Path = FOLDER) -> xr.DataArray:
    """One curve over `step`; ValueError with what there is where it is not there."""
    rows = _rows("curves.csv", folder)
    own = [r for r in rows if (r["condition"], r["quantity"]) == (condition, quantity)]
    if not own:
        there = sorted({r["quantity"] if r["condition"] == condition else r["condition"] for r in rows})
        raise ValueError(f"there is no curve {quantity!r} of {condition!r}; there are {there}")
    points = sorted((float(r["sequences"]) / BATCH, float(r["value"])) for r in own)
    step, value = np.array(points).T
    return xr.DataArray(value, {"step": step}, "step", name=quantity)


def paper_curves(*conditions: str, points: int = 2000, folder: Path = FOLDER) -> xr.Dataset:
    """Accuracies of conditions as our records have them: `accuracy_in_context` by seed (here: condition), step and
    evaluator, on one axis of steps between which the points that were read off are joined by lines."""
    found: dict[tuple[int, str], xr.DataArray] = {}
    for place, condition in enumerate(conditions):
        for name in ("icl", "flip", "ciwl"):
            try:
                found[place, name] = paper_curve(condition, f"accuracy_{name}", folder)
            except ValueError:
                if name == "flip":
                    raise
    step = np.linspace(0, max(float(of.step[-1]) for of in found.values()), points)
    values = np.full((len(conditions), points, 3), np.nan)
    for (place, name), of in found.items():
        inside = np.interp(step, of.step, of, right=np.nan)
        values[place, :, ("icl", "flip", "ciwl").index(name)] = inside
    coordinates = {"seed": list(range(len(conditions))), "step": step, "evaluator": ["icl", "flip", "ciwl"]}
    return xr.Dataset({"accuracy_in_context": (("seed", "step", "evaluator"), values)}, coordinates)


def paper_number(finding: str, condition: str = "main", folder: Path = FOLDER) -> float:
    """A number of the paper; NaN where what it is the time of did not happen."""
    rows = _rows("numbers.csv", folder)
    for row in rows:
        if (row["finding"], row["condition"]) == (finding, condition):
            return float(row["value"] or "nan")
    raise ValueError(
        f"there is no number {finding!r} of {condition!r}; findings are {sorted({r['finding'] for r in rows})}"
    )
