"""The reduction beyond plain descent: what closes on two numbers a vector with momentum, weight decay, gradient noise
and sampled entries, what closes in law or in the mean, and what does not close.

All gradients are derivatives of the loss written on tensors with explicit entries; all reduced gradients come from
`toymodel.reduction.reduced_loss`.
"""

from __future__ import annotations

import itertools
import math

import matplotlib.pyplot as plt
import numpy as np
import sympy as sp
import xarray as xr
from page import Page, assert_equal

import toymodel as tm
from toymodel import plotting
from toymodel.model import Form, Model
from toymodel.presets import coopetition
from toymodel.reduction import reduced_loss, symbols
from toymodel.theory.extended import (
    noisy_residual_expression,
    residual_drift_expression,
    sampled_variance,
)

SIZE = 3  # entries of each vector in the checks with explicit entries
BASIS = sp.Matrix([[1, 2, 2], [2, 1, -2], [2, -2, 1]]) / 3  # rows: an orthonormal basis with rational entries


def entries(kind: str, letters: str | tuple[str, ...]) -> dict[str, list[sp.Symbol]]:
    return {x: [sp.Symbol(f"{kind}{x}{i}") for i in range(SIZE)] for x in letters}


def misses(letters: str, values: dict, targets: dict | None) -> list[sp.Expr]:
    """Target minus what was made, for every entry of a tensor (targets None: a cost)."""
    found = []
    for at in itertools.product(range(SIZE), repeat=len(letters)):
        made, wanted = (
            sp.prod(part[x][i] for x, i in zip(letters, at, strict=True)) if part else sp.Integer(0)
            for part in (values, targets)
        )
        found.append(wanted - made)
    return found


def explicit_loss(form: Form) -> tuple[sp.Expr, dict, dict]:
    """The loss summed over all entries of all tensors, and the symbols of the entries of vectors and of targets."""
    values, targets = entries("x_", form.vectors), entries("t_", form.vectors)
    _, weights, parameters = symbols(form)
    found = {
        t: weights[t] / 2 * sum(miss**2 for miss in misses(xs, values, targets if t in form.mechanisms else None))
        for t, xs in form.terms.items()
    }
    return form.loss(**found, **parameters), values, targets


def numbers(form: Form, seed: int) -> tuple[dict, dict]:
    """Rational coordinates (u, v, T) of all vectors, and rational weights and parameters."""
    draw = np.random.default_rng(seed)
    planes, weights, parameters = symbols(form)

    def rational() -> sp.Rational:
        return sp.Rational(int(draw.integers(1, 40)), 20)

    coordinates = {s: rational() for x in form.vectors for s in planes[x][:3]}
    return coordinates, {s: rational() for s in (*weights.values(), *parameters.values())}


class Optimiser:
    """x <- (1 - lr decay) x + p, p <- momentum p - lr g; Nesterov's variant takes g at x + momentum p."""

    def __init__(self, momentum: sp.Expr, decay: sp.Expr, nesterov: bool = False):
        self.lr, self.momentum, self.decay, self.nesterov = sp.Rational(1, 7), momentum, decay, nesterov

    def run(self, state: dict, velocity: dict, slope, steps: int) -> dict:
        for _ in range(steps):
            ahead = {s: x + self.momentum * velocity[s] if self.nesterov else x for s, x in state.items()}
            found = slope(ahead)
            velocity = {s: self.momentum * velocity[s] - self.lr * found[s] for s in state}
            state = {s: (1 - self.lr * self.decay) * x + velocity[s] for s, x in state.items()}
        return state


def two_ways(form: Form, optimiser: Optimiser, seed: int, steps: int = 2) -> None:
    """Asserts that the optimiser does the same, in rational numbers, to all entries and to the coordinates."""
    planes, _, _ = symbols(form)
    coordinates, constants = numbers(form, seed)
    whole, values, targets = explicit_loss(form)
    reduced = reduced_loss(form, *symbols(form))
    along, across = BASIS.row(0), BASIS.row(1)

    def placed(u: dict, x: str) -> sp.Matrix:
        return u[planes[x].u] * along + u[planes[x].v] * across

    fixed = {t: coordinates[planes[x].target] * along[i] for x in form.vectors for i, t in enumerate(targets[x])}
    full = {s: placed(coordinates, x)[i] for x in form.vectors for i, s in enumerate(values[x])}
    few = {s: coordinates[s] for x in form.vectors for s in planes[x][:2]}
    known = {planes[x].target: coordinates[planes[x].target] for x in form.vectors}

    def slope_of(loss: sp.Expr, state: dict, known: dict):
        formulas = {s: sp.diff(loss.subs(known | constants), s) for s in state}
        return lambda at: {s: formula.xreplace(at) for s, formula in formulas.items()}

    start = {s: sp.Rational(i % 5 - 2, 9) for i, s in enumerate(few)}  # a velocity in the plane
    moving = {s: placed(start, x)[i] for x in form.vectors for i, s in enumerate(values[x])}
    ended = optimiser.run(full, moving, slope_of(whole, full, fixed), steps)
    reached = optimiser.run(few, start, slope_of(reduced, few, known), steps)
    for x in form.vectors:
        for i, s in enumerate(values[x]):
            assert_equal(ended[s], placed(reached, x)[i], f"entry {i} of {x}")


def small() -> Model:
    """Two mechanisms that share a vector, as a product, and weight decay as a cost of each vector alone."""
    return Model(
        mechanisms={"icl": "ab", "ciwl": "db"},
        costs={"cost": "ad", "decay_a": "a", "decay_b": "b", "decay_d": "d"},
        loss=lambda icl, ciwl, cost, decay_a, decay_b, decay_d, *, mu=0.1, alpha=0.1, rate=0.1: (
            (icl + mu) * ciwl + alpha * cost + rate * (decay_a + decay_b + decay_d)
        ),
        dims=dict.fromkeys("abd", SIZE),
    )


def momentum(page: Page) -> None:
    page.section("Momentum: closes, with two velocities a vector")
    page.text(
        r"""Heavy ball is $p \leftarrow \beta p - \eta\nabla_x L$, $x \leftarrow x + p$. The gradient at a point of the
        plane $(e, w)$ of $x^*$ and $x$ lies in that plane ([the reduction](reduction.md)), so a velocity that begins in
        it (from rest, for one) stays in it: $p = p_u e + p_v w$ and"""
    )
    page.equation(
        r"p_u \leftarrow \beta p_u - \eta\,\partial_u L,\quad u \leftarrow u + p_u,\quad p_v",
        r"\beta p_v - \eta\,\partial_v L,\quad v \leftarrow v + p_v",
    )
    page.text(
        r"""Nesterov's gradient is taken at $x + \beta p$, a point of the plane too. The coordinate $v$ now may change
        sign: the residual swings through zero. A velocity with a component across the plane adds one direction, and
        the dynamics closes on the span of $x^*$, $x_0$ and $p_0$, three numbers a vector."""
    )
    for nesterov, name in ((False, "heavy ball"), (True, "Nesterov")):
        two_ways(small().form, Optimiser(sp.Rational(9, 10), sp.Integer(0), nesterov), seed=1)
        page.claim(
            f"{name}: two steps from rational numbers on all {3 * SIZE} entries and on 6 coordinates end at the same "
            "point, exactly",
            True,
        )


def weight_decay(page: Page) -> None:
    page.section("Weight decay: closes, and is a model")
    u, v, rate, eta = sp.symbols("u v lambda eta", positive=True)
    page.text(
        r"""$\frac{\lambda}{2}|x|^2 = \frac{\lambda}{2}(u^2 + v^2)$ is a cost of one vector with weight 1, so the loss
        with
        weight decay is a `Model` like any other. Decoupled decay, $x \leftarrow (1 - \eta\lambda) x - \eta\nabla L$, is
        the same step of plain descent:"""
    )
    slope = sp.Symbol("L_u")
    page.check(
        r"$u - \eta\,\partial_u(L + \frac{\lambda}{2}(u^2+v^2)) = (1 - \eta\lambda)u - \eta\,\partial_u L$",
        u - eta * (slope + sp.diff(rate / 2 * (u**2 + v**2), u)),
        (1 - eta * rate) * u - eta * slope,
    )
    two_ways(small().form, Optimiser(sp.Integer(0), sp.Integer(0)), seed=2)
    two_ways(small().form, Optimiser(sp.Rational(9, 10), sp.Rational(1, 5)), seed=3)
    page.claim(
        "decay as a cost, with momentum, and decoupled decay on top: entries and coordinates end at the same point",
        True,
    )


def noise(page: Page) -> None:
    page.section("Gradient noise: closes in law")
    page.text(
        r"""Let each entry of each gradient have an independent error $\sigma\xi$, $\xi$ standard normal. Normal errors
        look the same in every orthonormal basis: one component lies along $e$, one along the residual's present
        direction $w$, and $n-2$ across both. Hence, exactly and for any step size,"""
    )
    page.equation(
        r"u \leftarrow u - \eta(\partial_u L + \sigma\xi_1),\qquad v^2",
        r"\big(v - \eta(\partial_v L + \sigma\xi_2)\big)^2 + (\eta\sigma)^2\chi^2_{n-2}",
    )
    page.text(
        r"""The right-hand side knows nothing of the direction of the residual, so $(u, v)$ of all vectors is a Markov
        chain of its own: the reduction holds *in law*. (For $n = 1$ there is no residual.) The dimension, which enters
        the noiseless dynamics through weights only, now counts."""
    )
    n, s = sp.symbols("n s", positive=True)
    for size in (1, 2, 4, 7):
        r = sp.symbols(f"r0:{size}", positive=True)
        radius = sp.sqrt(sum(x**2 for x in r))
        laplacian = sum(sp.diff(radius, x, 2) for x in r)
        ito = residual_drift_expression().subs({n: size + 1, sp.Symbol("v", positive=True): radius})
        assert_equal(s**2 / 2 * laplacian, ito, f"Ito drift of the radius in {size} dimensions")
        assert_equal(s**2 / 2 * sum(sp.diff(radius**2, x, 2) for x in r), size * s**2, f"of its square, {size}")
    page.text(
        r"""*Flow limit.* With $s = \sigma\sqrt\eta$ the errors of a unit of time add up to $s$. The residual is a point
        in $n-1$ dimensions, and It&#333;'s drift of its radius is $\frac{s^2}{2}\Delta v$:"""
    )
    page.equation(
        r"dv",
        r"\Big[-\partial_v L + " + sp.latex(residual_drift_expression()) + r"\Big]dt + s\,dB,\qquad "
        r"d(v^2) = \big[-2v\,\partial_v L + (n-1)s^2\big]dt + 2sv\,dB",
    )
    page.claim(
        "It&#333;'s drift is that of a Bessel process of dimension $n - 1$ (radius and square; in 1, 2, 4 and 7 "
        "dimensions)",
        True,
    )
    floor(page)
    page.text(
        r"""The *direction* of the residual diffuses on a sphere: $E[w\cdot w_0]$ decays at the rate $(n-2)s^2/2v^2$. It
        never matters to the loss."""
    )


def floor(page: Page) -> None:
    """E v^2 while the damping is constant, and its limits."""
    q0, damping, n, sigma, lr, steps = sp.symbols("q0 A n sigma lr steps", positive=True)
    mean = noisy_residual_expression()
    page.text(
        r"""*The floor of the residuals.* Where $\partial_v L = A v$ with a constant $A$ (plateau, neighbourhood of a
        fixed
        point) the mean of the square obeys $q \leftarrow (1-\eta A)^2 q + (n-1)\eta^2\sigma^2$, so"""
    )
    page.equation(r"E\,v^2", mean)
    once = mean.subs(steps, steps + 1) - ((1 - lr * damping) ** 2 * mean + (n - 1) * (lr * sigma) ** 2)
    page.check("it obeys the recursion", once + q0, q0)
    page.check("and starts at $q_0$", mean.subs(steps, 0), q0)
    t, s = sp.symbols("t s", positive=True)
    flow = q0 * sp.exp(-2 * damping * t) + (n - 1) * s**2 / (2 * damping) * (1 - sp.exp(-2 * damping * t))
    limit = sp.limit(mean.subs({sigma: s / sp.sqrt(lr), steps: t / lr}), lr, 0)
    page.check(r"$\eta\to0$: Ornstein and Uhlenbeck's mean, with the floor $(n-1)s^2/2A$", limit, flow)
    page.text(
        r"""Without noise a residual only shrinks. With it the residuals of the long vectors stay at their floor, and
        they
        damp the overlaps of the others: that shifts emergence and lifetime."""
    )


def sampling(page: Page) -> None:
    page.section("Sampled entries: close in the mean only")
    page.text(
        r"""Stochastic gradient descent here estimates each term from $B$ of its $N$ entries, drawn with replacement.
        Each
        term's estimate is unbiased, and the terms are sampled independently; so the mean of one step is the step of
        descent whenever the loss is of first degree in each term, as $(L_1+\mu_1)(L_2+\mu_2)+\alpha C$ is: $E[\hat L_1
        \nabla\hat L_2] = L_1\nabla L_2$. (A loss with a quotient or a power of a term is biased at order $1/B$.) In the
        mean of *one* step the reduction holds; over many steps the spread feeds back, since the loss is not
        quadratic. For one mechanism the covariance of the estimate for $x$ is, with the products over its other
        vectors,"""
    )
    page.equation(
        r"B\,\mathrm{cov}(\hat g_i, \hat g_j)",
        r"\delta_{ij} N w^2\Big[x_i^2\prod\textstyle\sum y^4 - 2x_ix_i^*\prod\sum y^3y^* + x_i^{*2}\prod\sum "
        r"y^2y^{*2}\Big] - g_i g_j",
    )
    form = Model({"icl": "abc"}, lambda icl: icl, dict.fromkeys("abc", SIZE)).form
    whole, values, targets = explicit_loss(form)
    weight = symbols(form)[1]["icl"]
    alone = [form.loss(icl=weight / 2 * SIZE**3 * miss**2) for miss in misses("abc", values, targets)]
    _, constants = numbers(form, 4)
    draw = iter(np.random.default_rng(5).integers(1, 30, 100).tolist())
    at = constants | {s: sp.Rational(next(draw), 11) for part in (values, targets) for x in part for s in part[x]}
    parts = [s for x in "abc" for s in values[x]]
    gradients = [{s: sp.diff(one, s).xreplace(at) for s in parts} for one in alone]
    whole = {s: sp.diff(whole, s).xreplace(at) for s in parts}
    mean = {s: sum(one[s] for one in gradients) / len(gradients) for s in whole}
    for s in whole:
        assert_equal(mean[s], whole[s], f"mean of the estimate for {s}")
    page.claim("the mean over all entries of the one-entry gradient is the gradient", True)
    numeric = [{x: np.array([at[s] for s in part[x]], object) for x in part} for part in (values, targets)]
    spread = sampled_variance(*numeric, "abc", "b", constants[weight], 1)
    one, other = values["b"][:2]
    assert_equal(sum(g[one] ** 2 for g in gradients) / len(gradients) - mean[one] ** 2, spread[0], "variance")
    crossed = sum(g[one] * g[other] for g in gradients) / len(gradients) - mean[one] * mean[other]
    assert_equal(crossed, -whole[one] * whole[other], "covariance")
    page.claim("variance and covariance of one entry's gradient are as stated, summed over all entries", True)
    page.text(
        r"""The sums of fourth powers are no functions of $|y|^2$ and $y\cdot y^*$. Two vectors with the same $(u, v)$
        and
        different spread of the next step exist, so no finite set of such numbers closes."""
    )
    along = {x: np.array([3.0, 0.0, 0.0]) for x in "abc"}
    flat, peaked = np.array([1.0, 1.0, 1.0]), np.array([1.0, math.sqrt(2), 0.0])
    spreads = [sampled_variance(along | {"b": b}, along, "abc", "c", 1.0, 1)[0] for b in (flat, peaked)]
    same = [(b @ along["b"], b @ b) for b in (flat, peaked)]
    page.claim(
        "b = (1, 1, 1) and (1, sqrt 2, 0) with the target (3, 0, 0) have the same coordinates, and the variances of "
        f"the gradient of c are {spreads[0]:.0f} and {spreads[1]:.0f}",
        bool(np.allclose(*same) and abs(spreads[0] - spreads[1]) > 1),
    )


def not_closed(page: Page) -> None:
    page.section("What does not close")
    page.lines(
        r"""- Sampled entries, beyond the mean of one step (above).
- Rules that act on single entries: sign descent, Adam, clipping by value. They single out a basis.
- Gradient noise with momentum does not close on the plane, since the velocity leaves it; in law it closes on five
  numbers a vector ($u$, $p_u$, $|r|$, and the velocity's components along and across the residual $r$).
- Noise whose variance differs from entry to entry, and label noise in the targets' entries."""
    )
    one, other = np.array([1.0, 1.0, -1.0, -1.0]) / 2, np.array([1.0, -1.0, 0.0, 0.0]) / math.sqrt(2)
    target = np.ones(4)
    sides = [0.3 * target - 1.0 * w for w in (one, other)]
    after = [float((x - 0.1 * np.sign(x - target)) @ target) for x in sides]
    page.claim(
        "two states with the same $u$ and $v$ and different $u$ after one step of sign descent on "
        r"$\frac12|x^* - x|^2$: " + f"{after[0]:.2f} and {after[1]:.2f} against {sides[0] @ target:.2f} before",
        bool(np.isclose(sides[0] @ target, sides[1] @ target) and abs(after[0] - after[1]) > 0.05),
    )


def simulations(page: Page) -> None:
    """Noise and sampling on all entries, against the coordinates."""
    page.section("What it predicts")
    model = coopetition(dims=(6, 6, 6, 24))
    vectors = tm.random_vectors(model, 3, scale=0.5)
    start, copies = tm.from_vectors(model, vectors), 400
    plt.rcParams["svg.hashsalt"] = "toymodel"
    figure, axes = plotting.new(1, 2, 6.0, 2.6)
    law = with_noise(axes[0], model, vectors, start, copies)
    spread = with_samples(axes[1])
    plotting.panel_letters(axes)
    page.figure(
        figure,
        f"""(a) Gradient noise 0.05, step 0.5: residuals of d (upper) and b (lower), mean and range from 5 to 95 % of
        {copies} runs of all 42 entries (points, bars) and of the chain in (u, v) (lines, bands); the means agree within
        {law:.1f} standard errors. Without noise the residuals end on the dotted lines. (b) One step of descent from 4
        sampled entries of one tensor: standard deviation of an overlap over 1,000 draws for 20 starts, against
        `sampled_variance`: within {spread:.0%}.""",
    )


def with_noise(ax, model: Model, vectors: xr.Dataset, start: xr.Dataset, copies: int) -> float:
    settings = {"every": 50, "noise": 0.05, "lr": 0.5, "progress": False}
    many = vectors.expand_dims(copy=range(copies))
    full = tm.descend_vectors(model, many, 1_000, **settings)
    del settings["progress"]
    few = tm.descend(model, start.expand_dims(copy=range(copies)), 1_000, noise_seed=1, **settings)
    calm = tm.descend(model, start, 1_000, every=50, lr=0.5)
    furthest = 0.0
    for x, colour in (("d", plotting.COLOURS["ciwl"]), ("b", plotting.COLOURS["shared"])):
        one, other = (runs.residual.sel(vector=x) for runs in (few, full))
        low, high = (one.quantile(q, "copy") for q in (0.05, 0.95))
        ax.fill_between(one.time, low, high, color=colour, alpha=0.2, lw=0)
        ax.plot(one.time, one.mean("copy"), color=colour, label=x)
        thin = other.isel(time=slice(0, None, 2))
        centre = thin.mean("copy")
        bars = [abs(thin.quantile(q, "copy") - centre) for q in (0.05, 0.95)]
        ax.errorbar(thin.time, centre, bars, fmt="o", ms=2.5, lw=0.8, color=colour)
        ax.plot(calm.time, calm.residual.sel(vector=x), ":", color=colour)
        error = np.hypot(one.std("copy"), other.std("copy")) / math.sqrt(copies)
        furthest = max(furthest, float((abs(one.mean("copy") - other.mean("copy")) / error)[1:].max()))
    ax.set(xlabel="time (steps x step size)", ylabel="residual", ylim=(0, None))
    ax.legend()
    assert furthest < 4.5
    return furthest


def with_samples(ax) -> float:
    """The spread of the overlaps after one step of descent from samples, against `sampled_variance`."""
    one = Model({"icl": "abc"}, lambda icl: icl, dict.fromkeys("abc", 6))
    vectors, copies, sample = tm.random_vectors(one, range(20)), 1_000, 4
    many = vectors.expand_dims(copy=range(copies))
    after = tm.descend_vectors(one, many, 1, sample=sample, progress=False).overlap.isel(time=-1)
    values, targets = ({x: vectors[f"{x}{end}"].values for x in "abc"} for end in ("", "_target"))
    worst = 0.0
    for x, colour in (("a", "icl"), ("b", "shared")):
        variance = sampled_variance(values, targets, "abc", x, one.weights["icl"], sample)
        along = targets[x] / np.linalg.norm(targets[x], axis=1, keepdims=True)
        others = [(values[y], targets[y]) for y in "abc" if y != x]
        kept, wanted = (math.prod((y * z).sum(1) for y, z in pairs) for pairs in ([(v, v) for v, _ in others], others))
        slope = one.weights["icl"] * (values[x] * kept[:, None] - targets[x] * wanted[:, None])
        square = (
            (variance * along**2).sum(1) + ((slope * along) ** 2).sum(1) / sample - (slope * along).sum(1) ** 2 / sample
        )
        measured = after.sel(vector=x).std("copy").values
        ax.plot(np.sqrt(square), measured, "o", ms=3.5, color=plotting.COLOURS[colour], label=x)
        worst = max(worst, float(np.abs(measured / np.sqrt(square) - 1).max()))
    ends = np.array(ax.get_xlim())
    ax.plot(ends, ends, ":", color=plotting.COLOURS["loss"])
    ax.set(xlabel="predicted spread of u", ylabel="measured spread of u", xscale="log", yscale="log")
    ax.legend()
    assert worst < 0.3
    return worst


def build() -> Page:
    page = Page(
        __file__,
        "The reduction with momentum, weight decay, noise and sampling",
        [
            "The loss is a differentiable function of mechanisms and costs, as in [the exact reduction](reduction.md).",
            r"Momentum starts from rest, or from any velocity in the plane of $x$ and $x^*$.",
            r"Gradient noise is normal, of the same standard deviation $\sigma$ in all entries, independent from step "
            "to step.",
            "Sampling draws entries of each tensor uniformly, with replacement, anew at each step and for each term.",
        ],
    )
    page.section("Statement")
    page.lines(
        r"""| what is added | what closes |
|---|---|
| momentum, Nesterov | exactly, with a velocity for $u$ and one for $v$ |
| weight decay, as a cost or decoupled | exactly |
| gradient noise | in law: $(u, v)$ is a Markov chain, $v$ a damped Bessel process of dimension $n-1$ |
| sampled entries | the mean of one step; its covariance needs fourth moments of the entries |
| Adam, sign descent | nothing |"""
    )
    momentum(page)
    weight_decay(page)
    noise(page)
    sampling(page)
    not_closed(page)
    simulations(page)
    page.section("Limits")
    page.text(
        """The law of the noisy chain is exact; its flow limit needs a small step. The floor of the residuals holds
        while
        their damping changes slowly. Sampling is not reduced beyond one step; `toymodel.descend_vectors` simulates
        it."""
    )
    page.section("What is new and what is textbook")
    page.text(
        """The radius of a random walk (a Bessel process) and the stationary variance of a linear
        recursion are textbook. New here: that the reduction closes in law under gradient noise, and where it does
        not."""
    )
    return page


if __name__ == "__main__":
    build().write()
