"""Is a state, a threshold or an end that the theory returns either NaN or right? By JAX on tensors, roots and flow.

Inputs and what counts as off or in vain: `theory_inputs`. Losses, slopes and Hessians are those that JAX derives from
the loss on tensors (`tm.descend_vectors`), of vectors that lie in as many entries as are needed.

    python benchmarks/theory_ranges_states.py [inputs] [seed] [names ...]   (share of them that each gets: CASES)
"""

from __future__ import annotations

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr
from scipy.optimize import root
from theory_inputs import MODEL, Cases, Inputs, Score, table

import toymodel as tm
from toymodel.model import Form
from toymodel.simulation.tensors import tensor_loss

ZERO = 1e-7  # a slope, relative to the largest curvature times the norm
FOREVER, MANY = 1e9, 10_000_000  # time, and steps of a flow until then


@partial(jax.jit, static_argnames="form")
def _derivatives(form: Form, y: Any, norms: Any, weights: Any, parameters: Any) -> tuple[Any, Any, Any]:
    """Loss, slope and Hessian of one state y, shape (vectors, entries)."""
    targets = {x: jnp.zeros(y.shape[1]).at[0].set(norm) for x, norm in norms.items()}

    def loss(flat: Any) -> Any:
        values = dict(zip(form.vectors, flat.reshape(y.shape), strict=True))
        return tensor_loss(form, values, targets, weights, parameters)

    flat = y.reshape(-1)
    return loss(flat), jax.grad(loss)(flat), jax.hessian(loss)(flat)


def derivatives(
    model: tm.Model, overlap: Any, residual: Any, *, entries: Any = 2, **given: Any
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Loss, slope and Hessian in (u_a, v_a, u_b, ...) of one state, by JAX on tensors; numbers are the model's."""
    y = np.zeros((len(model.vectors), entries))
    y[:, 0], y[:, 1] = overlap, residual
    weights, norms = dict(model.weights), dict(model.target_norms)
    with jax.enable_x64(True):
        found = _derivatives(model.form, y, norms, weights, {**model.parameters, **given})
        return tuple(np.asarray(part) for part in found)  # type: ignore[return-value]


def curvature(inputs: Inputs) -> Score:
    """The largest eigenvalue at the start, against that of vectors of three entries."""
    said = tm.theory.curvature(MODEL, inputs.start, **inputs.given()).largest.values
    measured = np.full(inputs.runs, np.nan)
    for i, model in enumerate(inputs.models()):
        start = inputs.start.isel(run=i)
        measured[i] = np.linalg.eigvalsh(derivatives(model, start.overlap, start.residual, entries=3)[2]).max()
    return {"curvature": (said, measured)}


def _compared(model: tm.Model, points: xr.Dataset, name: str, values: Any) -> tuple[np.ndarray, np.ndarray]:
    """Loss and eigenvalues of points as said, and by JAX: zero where there is no equilibrium; `name` has the values."""
    said, measured = [], []
    kinds = points["kind"].values if "kind" in points else [""] * len(values)
    columns = [points[one].values for one in ("overlap", "residual", "eigenvalue", "loss")]
    for value, kind, u, v, eigenvalues, of_loss in zip(values, kinds, *columns, strict=True):
        loss, slope, hessian = derivatives(model, u, v, **{name: float(value)})
        found = np.append(np.linalg.eigvalsh(hessian), loss)
        size = np.abs(found[:-1]).max()
        still = np.abs(slope).max() < ZERO * size * (np.linalg.norm([u, v]) + 1e-9)
        mine = np.append(eigenvalues, of_loss)
        said.append(np.where(np.abs(mine) < 1e-9 * size, 0, mine))
        measured.append(np.where(np.abs(found) < 1e-9 * size, 0, found) * still)
        if kind == "fold":
            said.append(np.array([1.0]))
            measured.append(np.array([1.0 if np.abs(found[:-1]).min() < 1e-5 * size else 10.0]))
    return np.concatenate(said), np.concatenate(measured)


def equilibria(inputs: Inputs) -> Score:
    """With weight decay of 0.01..2 times the rate at which ICL is still learned: all points, and one branch of them."""
    inputs.without_mu_ciwl()
    shares = inputs.spread(0.01, 2).values
    parts: dict[str, list[Any]] = {"fixed_points": [], "branch": []}
    for share, model in zip(shares, inputs.models(), strict=True):
        rate = share * float(tm.theory.decay_thresholds(model)["learning"])
        decaying = tm.theory.with_weight_decay(model, rate)
        points = tm.theory.fixed_points(decaying, flow_time=0.0)
        parts["fixed_points"].append(_compared(decaying, points, "decay", [rate] * points.sizes["point"]))
        try:
            found = tm.theory.branch(decaying, points.isel(point=0), "decay", (rate / 3, rate * 3), log=True, step=0.05)
        except (ValueError, RuntimeError) as error:
            print(f"branch: {error}")
            continue
        parts["branch"].append(_compared(decaying, found, "decay", found.decay.values))
    return {name: tuple(np.concatenate(side) for side in zip(*pairs, strict=True)) for name, pairs in parts.items()}  # type: ignore


def on_the_manifold(inputs: Inputs) -> tuple[xr.Dataset, xr.DataArray]:
    """Starts on the slow manifold, from 0.3..3 times the p of equal lengths and with d within 0..0.9 of CIWL's target,
    and 30 times the time in which ICL restores abc there."""
    whole, other = inputs.product("abc"), inputs.product("dbc")
    p = whole ** (2 / 3) * inputs.spread(0.3, 3).values
    d = other / p * inputs.draw.uniform(0, 0.9, inputs.runs)
    u = {"a": whole / p, "b": np.sqrt(p), "c": np.sqrt(p), "d": d}
    norms = {x: inputs.norm(x) for x in "abcd"}
    start = tm.aligned_start(MODEL, overlap={x: inputs.along(v) for x, v in u.items()}, target_norm=norms)
    rest = inputs.weights["ciwl"].values / 2 * (other - d * p) ** 2
    hold = rest * inputs.weights["icl"].values * (p**2 + 2 * whole**2 / p)
    return start, inputs.along(30 / hold)


def slow(inputs: Inputs) -> Score:
    """The velocity on the manifold, against the slope where flow that starts there has relaxed to it.

    dd/dt is scored where it is no small difference of what drives d and what takes it, and dp/dt where the error of the
    flow is below it.
    """
    start, unit = on_the_manifold(inputs.without_mu_ciwl())
    given, exact = inputs.given(), dict(rtol=1e-11, atol=1e-14, max_steps=MANY)
    # to the time 1 in that unit, of each run its own: (icl + mu_icl) ciwl + alpha cost has units of 1 / time
    given["mu_icl"] = given["mu_icl"] * unit
    given["weights"] = {t: w if t == "ciwl" else w * unit for t, w in given["weights"].items()}
    run = tm.flow(MODEL, start, 1.0, times=[1.0], progress=False, **exact, **given).isel(time=0)
    score = {f"slow_flow ({x})": [np.full(inputs.runs, np.nan) for _ in "01"] for x in "pd"}
    for i, model in enumerate(inputs.models()):
        at, real = moved(model, run.overlap.isel(run=i).values)
        said = tm.theory.slow_flow(model, *at)
        terms = abs(float(tm.theory.slow_flow(model, *at, alpha=1e-300)[1]) - float(said[1]))
        least = 1e-7 * 30 / float(unit[i]) * at[0], 0.1 * terms
        for name, one, speed, smallest in zip(score, said, real, least, strict=True):
            if abs(speed) > smallest:
                score[name][0][i], score[name][1][i] = one, speed
    return {name: (said, measured) for name, (said, measured) in score.items()}


def moved(model: tm.Model, u: Any) -> tuple[tuple[float, float], tuple[float, float]]:
    """p and d, and their rates under the flow of the whole model, at overlaps u without residuals."""
    speed = -derivatives(model, u, 0.0)[1][::2]
    return (u[1] * u[2], u[3]), (u[1] * speed[2] + u[2] * speed[1], speed[3])


def _coexistence(model: tm.Model, missing: float, guess: tuple[float, float]) -> tuple[float, float] | None:
    """p and d / (S_ciwl / p) at which neither a nor d moves with b = c = sqrt(p) and a share of abc missing."""
    norms = model.target_norms
    whole, other = (np.prod([norms[x] for x in letters]) for letters in ("abc", "dbc"))

    def slopes(z: np.ndarray) -> np.ndarray:
        p = np.exp(z[0])
        u = np.array([(1 - missing) * whole / p, np.sqrt(p), np.sqrt(p), z[1] * other / p])
        slope = derivatives(model, u, 0 * u)[1][::2]
        return np.array([slope[0] * u[0], slope[3] * u[3]]) / model.parameters["alpha"] / (u[0] * u[3]) ** 2

    for other_share in (guess[1], 0.9, 0.75):
        with np.errstate(all="ignore"):  # on its way it may try anything
            found = root(slopes, [np.log(guess[0]), other_share], method="hybr", options={"xtol": 1e-10})
        if found.success and np.abs(found.fun).max() < 1e-6 * model.weights["cost"] and 0.6 < found.x[1] < 1:
            return float(np.exp(found.x[0])), float(found.x[1])
    return None


def coexistence(inputs: Inputs) -> Score:
    """p at a random share of abc that is missing, 0.003..0.29; and the largest p, over all shares."""
    inputs.without_mu_ciwl()
    missing = inputs.spread(0.003, 0.29).values
    shape = (2, inputs.runs)
    single, fold = np.full(shape, np.nan), np.full(shape, np.nan)
    for i, model in enumerate(inputs.models()):
        single[0, i] = tm.theory.coexisting(model, missing[i])
        fold[0, i] = tm.theory.end_of_coexistence(model)
        guesses = [(float(single[0, i]) * f, 0.99) for f in (1, 0.7, 1.5, 0.4, 3) if np.isfinite(single[0, i])]
        found = next((p for g in guesses if (p := _coexistence(model, missing[i], g))), None)
        single[1, i] = found[0] if found else np.nan
        ps = []
        for share in np.geomspace(1e-4, 0.9, 52):
            guess = found or (float(tm.theory.coexisting(model, share)), 0.99)
            found = _coexistence(model, share, guess) if np.isfinite(guess[0]) else None
            ps.append(found[0] if found else np.nan)
        if np.isfinite(ps).any() and 0 < (at := int(np.nanargmax(ps))) < len(ps) - 1 and np.isfinite(ps[at + 1]):
            fold[1, i] = ps[at]
    return {"coexisting": tuple(single), "end_of_coexistence": tuple(fold)}  # type: ignore


def limits(inputs: Inputs) -> Score:
    """The largest rate of decay at which a rate balances what 2..6 vectors of one length x learn: on a grid of x."""
    said, measured = np.full(inputs.runs, np.nan), np.full(inputs.runs, np.nan)
    for i, (w, s) in enumerate(zip(inputs.weights["icl"].values, inputs.product("abc"), strict=True)):
        count = int(inputs.draw.integers(2, 7))
        x = np.linspace(0, 1, 20_001)[1:] * s ** (1 / count)
        said[i] = tm.theory.learning_limit(count, float(w), float(s))
        measured[i] = (w * (s - x**count) * x ** (count - 2)).max()
    return {"learning_limit": (said, measured)}


def shared(inputs: Inputs) -> Score:
    """p = |b||c| once CIWL is learned beside ICL that is there, without a cost."""
    inputs.without_mu_ciwl()
    inputs.parameters["alpha"] = 0 * inputs.parameters["alpha"]
    side = np.cbrt(inputs.product("abc"))
    norms = {x: inputs.norm(x) for x in "abcd"}
    overlap = {x: inputs.along(side * (0.01 if x == "d" else 1)) for x in "abcd"}
    run = tm.flow(
        MODEL, tm.aligned_start(MODEL, overlap=overlap, target_norm=norms), FOREVER, times=[FOREVER], progress=False,
        **inputs.given(),
    ).isel(time=0)  # fmt: skip
    p = (run.overlap.sel(vector="b") * run.overlap.sel(vector="c")).where(run.loss_ciwl < 0.01 * run.unlearned_ciwl)
    said = np.array([tm.theory.noise_product(model, "icl") for model in inputs.models()])
    return {"noise_product": (said, p.values)}


def strategy(inputs: Inputs) -> Score:
    """The label where at most one of the mu is zero: said is 1, and measured 1 for that label at t = 1e9, else 10; not
    scored where it is another one that still moves."""
    swapped = inputs.along(inputs.draw.random(inputs.runs) < 0.3) & (inputs.parameters["mu_ciwl"] > 0)
    inputs.parameters["mu_icl"] = inputs.parameters["mu_icl"].where(~swapped, 0.0)
    given: dict[str, Any] = dict(times=[FOREVER / 10, FOREVER], max_steps=MANY, progress=False)
    run = tm.flow(MODEL, inputs.start, FOREVER, **given, **inputs.given())
    icl, ciwl = (run[f"loss_{m}"] < run[f"unlearned_{m}"] / 2 for m in ("icl", "ciwl"))
    labels = np.array(["none", "icl", "ciwl", "icl+ciwl"])[(icl + 2 * ciwl).transpose("time", "run").values.astype(int)]
    said = tm.theory.asymptotic_strategy(MODEL, inputs.start, **inputs.given()).values
    right = said == labels[1]
    moving = (labels[1] == "none") | (labels[0] != labels[1]) | _moves(run)
    print(f"strategy: {int((moving & ~right).sum())} of {inputs.runs} are on their way at t = {FOREVER:g}")
    return {"asymptotic_strategy": (np.where(moving & ~right, np.nan, 1.0), np.where(right, 1.0, 10.0))}


def _moves(run: xr.Dataset) -> np.ndarray:
    """Whether a vector or the loss still changes by more than rounding over the last decade of time."""
    early, late = run.isel(time=0), run.isel(time=1)
    moved = abs(late.overlap - early.overlap).max("vector") > 1e-7 * abs(late.overlap).max("vector")
    return (moved | (late.loss < (1 - 1e-7) * early.loss)).values


def decay(inputs: Inputs) -> Score:
    """Each threshold from both sides, from the strategy alone: said is 1, and measured 1 (else 10) where it stays alone
    on the one side at 1.5 times and not on the other: at once, or as a mixture of both."""
    inputs.without_mu_ciwl()
    found: dict[str, list[float]] = {"icl": [], "ciwl": [], "learning": []}
    for i in range(inputs.runs):
        given = inputs.one(i)
        del given["weights"]
        model = tm.coopetition(dims=tuple(int(inputs.sizes[x][i]) for x in "abcd"), **given)
        for name, rate in tm.theory.decay_thresholds(model).items():
            found[name].append(float(rate))
    norms = {x: inputs.along(np.sqrt(inputs.sizes[x])) for x in "abcd"}
    product = {m: np.prod([norms[x] for x in letters], 0) for m, letters in MODEL.mechanisms.items()}
    decaying = tm.theory.with_weight_decay(MODEL)
    score: Score = {}
    for name, lasting in (("icl", "above"), ("ciwl", "below"), ("learning", "below")):
        own, other, mechanism = ("d", "a", "ciwl") if name == "ciwl" else ("a", "d", "icl")
        side = inputs.along(np.cbrt(product[mechanism]))
        rest = 0.0 if name == "learning" else 0.01 * side
        start = tm.aligned_start(
            MODEL,
            overlap={own: side, "b": side, "c": side, other: inputs.along(0 * side.values) + rest},
            target_norm=norms,
        )
        rate = inputs.along(np.array(found[name]))
        fate = {}
        for where, factor in (("below", 1 / 1.5), ("above", 1.5)):
            at = (rate * factor).fillna(1.0)
            scale = 60 / at
            horizon = float(scale.max())
            when = np.unique(np.concatenate([[0], scale.values, [horizon]]))
            acts = [tm.Clamp("d", overlap=0, residual=0)] if name == "learning" else []
            run = tm.flow(
                decaying, start, horizon, times=when, decay=at, interventions=acts, progress=False, **inputs.given()
            )
            half = {m: (run[f"loss_{m}"] / run[f"unlearned_{m}"]).sel(time=scale) < 0.5 for m in ("icl", "ciwl")}
            alone = half[mechanism] & (~half["icl" if mechanism == "ciwl" else "ciwl"])
            fate[where] = alone.values
        right = fate[lasting] & ~fate["above" if lasting == "below" else "below"]
        score[f"decay_thresholds ({name})"] = (np.where(np.isnan(rate), np.nan, 1.0), np.where(right, 1.0, 10.0))
    return score


CASES: Cases = {
    "curvature": (curvature, 0.1, "curvature"),
    "equilibria": (equilibria, 0.01, "fixed_points, branch"),
    "slow": (slow, 0.1, "slow_flow"),
    "coexistence": (coexistence, 0.02, "coexisting, end_of_coexistence"),
    "limits": (limits, 1.0, "learning_limit"),
    "shared": (shared, 0.2, "noise_product"),
    "strategy": (strategy, 1.0, "asymptotic_strategy"),
    "decay": (decay, 0.03, "decay_thresholds"),
}

if __name__ == "__main__":
    table(CASES)
