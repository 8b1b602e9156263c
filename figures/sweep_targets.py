"""Which strategy is learned first: a question of the size of the two targets, not of the number of entries alone."""

import numpy as np
import sympy as sp

import toymodel as tm
from toymodel import plotting
from toymodel.sweeps import plots

MODEL = tm.coopetition()


def equal_drive(entries: np.ndarray) -> np.ndarray:
    """The scale of the target of d at which dL/dicl w_icl = dL/dciwl w_ciwl, nothing being learned yet."""
    scale, n = sp.symbols("scale n", positive=True)
    icl, ciwl = (sp.Symbol(m, nonnegative=True) for m in ("icl", "ciwl"))
    shared = MODEL.dims["b"] * MODEL.dims["c"]
    weights = {"icl": 1 / sp.Integer(MODEL.dims["a"] * shared), "ciwl": 1 / (n * shared)}
    squares = {"icl": MODEL.dims["a"] * shared, "ciwl": n * scale**2 * shared}  # |targets|^2, entries of variance one
    unlearned = {icl: weights["icl"] * squares["icl"] / 2, ciwl: weights["ciwl"] * squares["ciwl"] / 2}
    values = {p: sp.Rational(str(v)) for p, v in MODEL.parameters.items()}
    slopes = {m: sp.diff(MODEL.expression, sp.Symbol(m, nonnegative=True)) for m in weights}
    drives = {
        m: slopes[m].subs(unlearned).subs({sp.Symbol(p, nonnegative=True): v for p, v in values.items()})
        for m in slopes
    }
    (root,) = sp.solve(drives["icl"] * weights["icl"] - drives["ciwl"] * weights["ciwl"], scale)
    return sp.lambdify(n, root)(entries)


def main() -> None:
    grid = dict(dim_d=tm.log(8, 640, 28), target_scale_d=tm.log(0.4, 4, 28))
    runs = tm.sweep(MODEL, over=grid, seeds=range(12), steps=16_000, start="random", fixed={"scale": 0.3})
    icl, ciwl = (runs.emergence.sel(mechanism=m, drop=True) for m in ("icl", "ciwl"))
    emerged = icl.notnull() | ciwl.notnull()
    first = (icl < ciwl.fillna(np.inf)).where(emerged).mean("seed").rename("share of starts, ICL first")
    edge = equal_drive(first.dim_d.values)
    side = first.target_scale_d / first.dim_d.copy(data=edge)
    assert float(first.where(side > 1.6).mean()) > 0.9 and float(first.where(side < 0.7).mean()) < 0.2
    transient = (runs.phase == "transient ICL").mean("seed").rename("share of starts, ICL transient")
    assert float(transient.where(side > 1.6).mean()) > 0.9 and float(transient.where(side < 0.6).mean()) < 0.5

    unfinished = runs.phase.isin(["plateau", "persistent ICL", "both"]).mean("seed").sel(dim_d=slice(300, None))
    assert float(unfinished.sel(target_scale_d=slice(None, 0.5)).mean()) > 0.6

    fig, (left, right) = plotting.new(1, 2, 7.0, 2.9)
    line = {"equal drive at the start": equal_drive}
    plots.heat(left, first, "dim_d", "target_scale_d", contours=[0.5], lines=line, cmap="RdBu", vmin=0, vmax=1)
    plots.heat(right, transient, "dim_d", "target_scale_d", contours=[0.5], lines=line, cmap="Blues", vmin=0, vmax=1)
    plotting.panel_letters((left, right))
    caption = """Share of random small starts (scale 0.3) in which in-context learning (ICL) is learned before CIWL (a),
    and in which it emerges and fades (b), against the number of entries of d and the scale of its target.
    Each strategy is driven by what the other leaves unlearned, so ICL comes first above a line that follows
    from the loss alone (solid: equal drive of the two; contour: half of the starts), and is then transient,
    except where the drive of CIWL is weakest (b, lower right): there 16,000 steps end before ICL emerges or
    before it fades."""
    plotting.finish(__file__, fig, caption)


if __name__ == "__main__":
    main()
