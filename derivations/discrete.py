"""Descent with finite steps and with noise: the spectrum of all entries from the coordinates, the largest stable step,
the first-order effect of the step, and what gradient noise does to emergence and lifetime.

All from the reduced loss; the spectrum is checked against the Hessian of the loss with explicit entries.
"""

from __future__ import annotations

import math

import numpy as np
import sympy as sp
import xarray as xr
from page import Page, assert_equal
from reduction_extended import BASIS, SIZE, explicit_loss, numbers, small
from scipy.optimize import brentq

import toymodel as tm
from toymodel import plotting
from toymodel.presets import coopetition, induction
from toymodel.reduction import reduced_loss, symbols
from toymodel.theory.arrays import function
from toymodel.theory.conserved import label
from toymodel.theory.discrete import (
    across,
    curvature,
    loss_floor,
    loss_floor_expression,
    modified_flow,
    noise_drift,
    noise_threshold,
    noise_threshold_expression,
)
from toymodel.theory.long_noise import long_noise_expressions, noise_lasting_product, noise_product
from toymodel.theory.quadrature import SHARE


def spectrum(page: Page) -> None:
    """The Hessian of all entries in the basis of the planes and across them."""
    page.section("The spectrum of all entries")
    page.text(
        r"""The slope of $x$ is $A_x x + B_x x^*$ with scalars that depend on norms and overlaps ([the exact
        reduction](reduction.md)). Along a direction $t$ orthogonal to the plane of $x$, norms and overlaps do
        not change to first order, so $H t = A_x t$: an eigenvector, $n_x - 2$ times, and no coupling between
        the planes and the rest. Inside of the planes $(u, v)$ are Cartesian coordinates, so that block is the
        Hessian of the reduced loss. Hence"""
    )
    page.equation(
        r"\mathrm{spec}\,\nabla^2 L",
        r"\mathrm{spec}\,\nabla^2_{(u,v)}L\;\cup\;\{A_x\ (n_x-2\text{ times})\},\quad A_x = \partial_{v_x}L\,/\,v_x",
    )
    form = small().form
    planes, _, _ = symbols(form)
    coordinates, constants = numbers(form, 7)
    whole, values, targets = explicit_loss(form)
    rows = {k: BASIS.row(i) for i, k in enumerate(("u", "v", "t"))}
    at = dict(constants)
    for x in form.vectors:
        place = coordinates[planes[x].u] * rows["u"] + coordinates[planes[x].v] * rows["v"]
        at |= dict(zip(values[x], place, strict=True))
        at |= {t: coordinates[planes[x].target] * rows["u"][i] for i, t in enumerate(targets[x])}
    reduced = sp.sympify(reduced_loss(form, *symbols(form)))
    few = coordinates | constants
    second = {
        (s, r): sp.diff(whole, s, r).xreplace(at)
        for x in form.vectors
        for y in form.vectors
        for s in values[x]
        for r in values[y]
    }
    for x in form.vectors:
        for y in form.vectors:
            block = sp.Matrix(SIZE, SIZE, lambda i, j, x=x, y=y: second[values[x][i], values[y][j]])
            turned = BASIS * block * BASIS.T
            for i, s in enumerate(planes[x][:2]):
                for j, r in enumerate(planes[y][:2]):
                    assert_equal(turned[i, j], sp.diff(reduced, s, r).xreplace(few), f"block {x}{y}, {s} {r}")
                assert_equal(1 + turned[i, 2], 1, f"coupling of {s} and the rest of {y}")
            outside = across(form)[x].xreplace(few) if x == y else 0
            assert_equal(1 + turned[2, 2], 1 + outside, f"the rest of {x} and {y}")
    page.claim(
        f"the Hessian of all {3 * SIZE} entries of a model with a shared vector, a cost and decay has exactly these "
        "blocks, at rational points",
        True,
    )


def stability(page: Page) -> None:
    page.section("The largest stable step")
    page.text(
        r"""A small error $\delta$ becomes $(1-\eta H)\delta$ at a step: descent is stable while $\eta <
        2/\lambda_{max}$, which closes on the coordinates (`tm.theory.curvature`). While ICL is learned and CIWL
        is not, $\lambda_{max}$ is that of one mechanism at its end ([conserved quantities](conserved.md)), with
        the weight $(L_2+\mu_2)w_1$:"""
    )
    page.equation(r"\lambda_{max}", r"(L_2+\mu_2)\,w_1S_1^2\Big(\frac1{a^2}+\frac1{b^2}+\frac1{c^2}\Big)")
    form = coopetition().form
    planes, weights, parameters = symbols(form)
    loss = sp.sympify(reduced_loss(form, planes, weights, parameters))
    us = [planes[x].u for x in "abc"]
    target = planes["a"].target * planes["b"].target * planes["c"].target
    learned = {planes[x].v: 0 for x in "abcd"} | {planes["d"].u: 0, us[0]: target / (us[1] * us[2])}
    unlearned = weights["ciwl"] / 2 * (planes["d"].target * planes["b"].target * planes["c"].target) ** 2
    trace = sp.Add(*(sp.diff(loss, u, 2) for u in us)).subs(learned)
    slope = (unlearned + parameters["mu_ciwl"]) * weights["icl"] * target**2
    page.check(
        "the trace of the block of $a$, $b$, $c$ where $abc = S_1$ and $d = 0$, the rank of which is one",
        trace,
        (slope * sp.Add(*(u**-2 for u in us))).subs(learned),
    )
    page.text(
        r"""*Why descent spikes where $\mu_1 = 0$.* Then nothing ends ICL, and the cost goes on taking $a$ down,
        while $b$ and $c$ grow to keep $abc = S_1$, and with them what CIWL makes wrong, $L_2$: the valley
        becomes sharper and sharper, until descent meets its edge, at $a^2 \approx \eta L_2w_1S_1^2/2$. With
        $\mu_1 > 0$ CIWL takes over before that."""
    )


def modified(page: Page) -> None:
    page.section("The first-order effect of the step")
    page.text(
        r"""Descent with the step $\eta$ follows, to second order, the flow of $\tilde L = L + \frac\eta4|\nabla
        L|^2$. It closes as well, since $|\nabla L|^2$ is the sum of squares of the slopes in $(u, v)$."""
    )
    form = induction().form
    planes, weights, parameters = symbols(form)
    loss = sp.sympify(reduced_loss(form, planes, weights, parameters))
    ys = [s for x in form.vectors for s in planes[x][:2]]
    point = {s: sp.Rational(3 + 2 * i, 7 + i) for i, s in enumerate(ys)}
    others = {s: sp.Rational(5 + i, 6) for i, s in enumerate(sorted(loss.free_symbols - set(ys), key=str))}
    loss, t = loss.xreplace(others), sp.Symbol("t")

    def along(vector: sp.Matrix, way: sp.Matrix, times: int = 1) -> sp.Matrix:
        """A derivative of a vector of expressions at the point, in the direction of numbers."""
        line = {y: point[y] + t * by for y, by in zip(ys, way, strict=True)}
        return sp.diff(vector.xreplace(line), t, times).subs(t, 0)

    slope = sp.Matrix([sp.diff(loss, y) for y in ys])
    bent = slope.jacobian(ys) * slope  # H g
    for y, half, one in zip(ys, bent / 2, [sp.diff(slope.dot(slope) / 4, y) for y in ys], strict=True):
        assert_equal(half, one, f"the slope of the step's own loss by {y}")
    zeroth, first = -slope, -bent / 2
    speed, turn = zeroth.xreplace(point), first.xreplace(point)
    second = along(slope, 2 * turn) / 3 - along(slope, speed, 2) / 12
    gain = along(zeroth, speed)  # of the velocity on its way
    of_second = along(first, speed) + along(zeroth, turn), along(zeroth, speed, 2) + along(zeroth, gain)
    orders = [speed, turn + gain / 2, second + of_second[0] / 2 + of_second[1] / 6]
    for n, found in enumerate(orders, 1):
        for y, one, wanted in zip(ys, found, speed if n == 1 else sp.zeros(6, 1), strict=True):
            assert_equal(1 + one, 1 + wanted, f"order {n} of {y}")
    page.claim(
        r"the flow of $\tilde L$ for the time $\eta$ is the step of descent up to order $\eta^3$, in all coordinates "
        r"of the induction model; with $-\eta^2(\frac13H^2\nabla L+\frac1{12}\nabla^3L[\nabla L,\nabla L])$ added to "
        r"its velocity, $H=\nabla^2L$, up to order $\eta^4$",
        True,
    )
    page.text(
        r"""That next order is the measure of the error: `modified_flow` integrates both, and says NaN from where they
        differ by more than a tenth of the way gone. So it does on long plateaus, where an error that is small at
        first moves the emergence."""
    )


def noise(page: Page) -> None:
    page.section("Gradient noise: drift and floor")
    s, n, k = sp.symbols("s n k", positive=True)
    stiffness, slope, size = sp.symbols("h F N", positive=True)
    page.text(
        r"""Noise of $s = \sigma\sqrt\eta$ a unit of time adds $s^2n_x$ to the mean rate of $|x|^2$ ([extended
        reduction](reduction_extended.md)), $n_x - 1$ of it to the residual's square, and to the balances
        (`noise_drift`):"""
    )
    page.equation(
        r"\frac{d}{dt}E(|a|^2+|d|^2-|b|^2)",
        r"-8\alpha\,E\,C + s^2(n_a+n_d-n_b),\qquad \frac{d}{dt}E(|b|^2-|c|^2) = s^2(n_b-n_c)",
    )
    found = noise_drift(coopetition(), 0.5, 0.1)
    sizes = coopetition().dims
    wanted = [sizes["b"] - sizes["c"], sizes["a"] + sizes["d"] - sizes["b"]]
    keys = [label(b) for b in coopetition().conserved()]
    signs = [next(iter(b.coefficients.values())) for b in coopetition().conserved()]
    page.claim(
        "`noise_drift` for the published model",
        bool(np.allclose([found[key] * sign for key, sign in zip(keys, signs, strict=True)], 0.025 * np.array(wanted))),
    )
    page.text(
        r"""*The floor of a learned loss.* Near a point where a mechanism is learned, the loss is $F L_m$ with $F =
        \partial L/\partial L_m$, and quadratic. A direction of stiffness $h$ fluctuates with the variance
        $s^2/2h$ (that of the flow limit), which is $s^2/4$ of the loss whatever $h$ is. Stiff are one direction
        among the overlaps ([conserved quantities](conserved.md)) and all residuals, $\sum_x(n_x - 1)$ of them:"""
    )
    page.check("one direction", stiffness / 2 * s**2 / (2 * stiffness), s**2 / 4)
    page.equation(r"E\,L_m", loss_floor_expression())
    page.check(
        "for $k$ vectors with $N$ entries",
        (1 + size - k) * (s**2 / 4) / slope,
        loss_floor_expression(),
    )
    threshold(page, s, n)


def threshold(page: Page, s: sp.Symbol, n: sp.Symbol) -> None:
    page.section("Noise keeps ICL alive")
    page.text(
        r"""CIWL that has won leaves ICL the slope of its loss, $L_2$. Without noise that goes to zero and the cost
        takes $a$ away; with noise it ends at its floor, $s^2(N_2-2)/4(L_1+\mu_1)$. Let $x = abc/S_1$ be what
        remains of ICL, $p = bc$ and $d = S_2/p$. The slope in $a$ vanishes where $L_2w_1p^2(1-x) = \alpha
        w_cd^2x$, so"""
    )
    page.equation(
        r"\kappa = \frac{x}{1-x}\big(\ell_1(1-x)^2+\mu_1\big),\qquad \kappa",
        r"\frac{w_1p^4(N_2-2)}{4\alpha w_cS_2^2}\,s^2",
    )
    form = coopetition().form
    planes, weights, parameters = symbols(form)
    loss = sp.sympify(reduced_loss(form, planes, weights, parameters)).subs({planes[x].v: 0 for x in "abcd"})
    w1, wc, s2, l1, mu1, alpha, size = sp.symbols("w1 wc S2 l1 mu1 alpha N2", positive=True)
    p, share, one = sp.symbols("p x S1", positive=True)
    shared = planes["b"].target * planes["c"].target
    names = {planes["b"].u: sp.sqrt(p), planes["c"].u: sp.sqrt(p), weights["icl"]: w1, weights["cost"]: wc}
    names |= {parameters["alpha"]: alpha, parameters["mu_icl"]: mu1, parameters["mu_ciwl"]: sp.Symbol("L2")}
    slope = sp.diff(loss, planes["a"].u).subs(names).subs({planes["a"].target: one / shared})
    slope = slope.subs({planes["d"].u: s2 / p, planes["d"].target: s2 / shared, planes["a"].u: share * one / p})
    left = -sp.Symbol("L2") * w1 * one * (1 - share) * p + alpha * wc * (s2 / p) ** 2 * share * one / p
    page.check("the slope in $a$, with the floor in the place of $\\mu_2$", slope, left)
    floor = s**2 * (size - 2) / (4 * (l1 * (1 - share) ** 2 + mu1))
    kappa = w1 * p**4 * (size - 2) / (4 * alpha * wc * s2**2) * s**2
    scale = alpha * wc * s2**2 * one * (1 - share) / p**3
    rest = left.subs(sp.Symbol("L2"), floor) / scale * (l1 * (1 - share) ** 2 + mu1)
    page.check("is this equation", rest + kappa, share / (1 - share) * (l1 * (1 - share) ** 2 + mu1))
    at = sp.solve(kappa - (share / (1 - share) * (l1 * (1 - share) ** 2 + mu1)).subs(share, SHARE), s**2)
    page.text(r"ICL counts as learned while $L_1 < \ell_1/2$, that is $x > 1 - 1/\sqrt2$: above the threshold")
    page.equation("s^2", noise_threshold_expression())
    page.check("solved for $s^2$", at[0], noise_threshold_expression())
    sigma = noise_threshold(coopetition())
    page.text(
        f"""At the paper's values, step 1, this is a noise of {sigma:.4f} in every entry of the gradient, for $p =
        S_2^{{2/3}}$ where CIWL has won with vectors of equal lengths. Noise of this kind is a third way, besides
        $\\mu_2 > 0$ and [weight decay](weight_decay.md), to make ICL persist, here beside CIWL."""
    )


def long_times(page: Page) -> None:
    page.section("Noise over long times")
    form = coopetition().form
    planes, weights, parameters = symbols(form)
    s, n_a, n_b, n_d, s1, s2, p = sp.symbols("s n_a n_b n_d S1 S2 p", positive=True)
    alpha, wc, cost = parameters["alpha"], weights["cost"], sp.Symbol("C", positive=True)
    said = {k: e.subs(sp.Symbol("alpha", positive=True), alpha).subs(sp.Symbol("wc", positive=True), wc)
            for k, e in long_noise_expressions().items()}  # fmt: skip
    page.text(
        r"""Slopes take nothing from $\delta = |b|^2-|c|^2$, and from $\beta = |a|^2+|d|^2-|b|^2$ what the cost takes.
        With $n_b = n_c$ the mean of $\delta$ stays; it spreads as a sum of independent steps does, by the square of its
        slope:"""
    )
    b, c = sp.symbols("b c", positive=True)
    delta = b**2 - c**2
    page.equation(r"\frac{d}{dt}\mathrm{Var}\,\delta", r"4s^2\,E(|b|^2+|c|^2)")
    page.check(
        "$s^2|\\nabla\\delta|^2$", s**2 * (sp.diff(delta, b) ** 2 + sp.diff(delta, c) ** 2), 4 * s**2 * (b**2 + c**2)
    )
    page.text(
        r"""Nothing holds it: a factor $k$ on $b$ and $1/k$ on $c$ changes no loss, so **there is no stationary law**.
        What $a$ and $d$ feel is $p = |b||c|$ alone, and what decides on $p$, once CIWL is learned, is $\beta$.
        *Where ICL is there*, its mean stops to drift at"""
    )
    drift = -8 * alpha * cost + s**2 * (n_a + n_d - n_b)
    page.equation(r"C^*", r"\frac{s^2(n_a+n_d-n_b)}{8\alpha}")
    page.check("the zero of the drift", sp.solve(drift, cost)[0], said["cost"])
    page.equation(r"p^*", r"\Big(\frac{w_cS_1^2S_2^2}{2C^*}\Big)^{1/4}")
    page.check("$C$ there, with $a = S_1/p$, $d = S_2/p$", wc / 2 * (s1 / p) ** 2 * (s2 / p) ** 2,
               said["cost"] * (said["product"] / p) ** 4)  # fmt: skip
    page.text(
        r"""At $p^*$ the $\kappa$ above is $2\ell_1(N_2-2)/(n_a+n_d-n_b)$: neither noise nor $\alpha$ is in it, and with
        most entries in $d$ ICL is nearly whole there."""
    )
    w1, size, l1 = weights["icl"], sp.Symbol("N2", positive=True), weights["icl"] * s1**2 / 2
    kappa = w1 * said["product"] ** 4 * (size - 2) / (4 * alpha * wc * s2**2) * s**2
    page.check(r"this $\kappa$", kappa, 2 * l1 * (size - 2) / (n_a + n_d - n_b))
    page.text(
        r"""*Where ICL is gone*, $a$ is noise that the cost damps at the rate $A_a = \alpha w_c|d|^2$ in each of its
        entries, $|a|^2 = n_as^2/2A_a$, and $8\alpha C = 2n_as^2$:"""
    )
    gone = {planes["b"].u: sp.sqrt(p), planes["c"].u: sp.sqrt(p), planes["d"].u: s2 / p}
    gone |= {planes[x].v: 0 for x in "abcd"} | {planes["a"].u: 0, parameters["mu_ciwl"]: 0}
    gone |= {planes["d"].target: s2 / (planes["b"].target * planes["c"].target)}
    damping = across(form)["a"].subs(gone)
    page.check("the damping, where CIWL is learned", damping, alpha * wc * (s2 / p) ** 2)
    noisy = wc / 2 * (s2 / p) ** 2 * n_a * s**2 / (2 * damping)
    page.equation(r"\frac{d\beta}{dt}", r"s^2(n_d-n_a-n_b)")
    page.check("the drift", drift.subs(cost, noisy), said["beta"])
    page.text(
        r"""For $n_d > n_a+n_b$, as in the paper, $d$ becomes longer and $p$ smaller, and the threshold, as $p^{-2}$,
        rises: ICL is gone for good. For $n_d < n_a+n_b$, $p$ grows until the threshold has come down to the noise, and
        ICL comes back. *The two thresholds.* From CIWL with equal lengths $p = S_2^{2/3}$. From ICL, $d$ grows while
        $\beta = 0$ stays, and CIWL is learned at $p^3 = S_1^2+S_2^2$; from there the cost makes $p$ grow, so that noise
        above the threshold at this $p$ keeps ICL, and a little less may."""
    )
    beta = (s1 / p) ** 2 + (s2 / p) ** 2 - p
    root = (s1**2 + s2**2) ** sp.Rational(1, 3)
    page.check("$\\beta = 0$ with both learned", 1 + beta.subs(p, root), sp.Integer(1))


def lasting(page: Page) -> None:
    """Runs with noise from either side over long times: what is kept, p, and the spread of delta."""
    model, copies, steps = coopetition(), 24, 60_000
    norms = model.target_norms
    sides = {m: math.prod(norms[x] for x in letters) ** (1 / 3) for m, letters in model.mechanisms.items()}
    starts = {
        "icl": tm.aligned_start(model, overlap={**dict.fromkeys("abc", sides["icl"]), "d": 0.05}),
        "ciwl": tm.aligned_start(model, overlap={"a": 0.05, **dict.fromkeys("bcd", sides["ciwl"])}),
    }
    limits = {m: float(noise_threshold(model, product=noise_product(model, m))) for m in starts}
    rows, ratios, spreads, drifts = [], [], [], []
    for sigma in (0.002, 0.0025, 0.003, 0.0035, 0.004, 0.0045, 0.005, 0.006, 0.0086, 0.0172):
        kept = {}
        for name, start in starts.items():
            run = tm.descend(model, start.expand_dims(copy=range(copies)), steps, every=500, noise=sigma)
            kept[name] = float((run.loss_icl < run.unlearned_icl / 2).isel(time=-1).mean())
            late = run.isel(time=slice(-40, None))
            squares = late.overlap**2 + late.residual**2
            p = (squares.sel(vector="b") * squares.sel(vector="c")) ** 0.5
            if kept[name] == 1 and sigma > 0.005:
                ratios.append(float(noise_lasting_product(model, sigma) / p.mean()))
            if kept[name] == 0:
                every = run.overlap**2 + run.residual**2
                beta = (every * xr.DataArray([1, -1, 0, 1], {"vector": list("abcd")}, "vector")).sum("vector")
                change = beta.isel(time=-1) - beta.sel(time=20_000)
                rate = function(long_noise_expressions()["beta"])(s=sigma, **{f"n_{x}": model.dims[x] for x in "abd"})
                drifts.append(float(change.mean()) / (rate * (steps - 20_000)))
            if name == "ciwl":
                every = run.overlap**2 + run.residual**2
                spread = (every.sel(vector="b") - every.sel(vector="c")).isel(time=-1).var()
                said = 4 * sigma**2 * every.sel(vector=["b", "c"]).sum("vector").mean("copy").integrate("time")
                spreads.append(float(spread / said))
        rows.append(f"| {sigma:g} | {kept['icl']:.0%} | {kept['ciwl']:.0%} |")
        assert sigma < limits["icl"] or kept["icl"] > 0.9
        assert sigma < 1.15 * limits["ciwl"] or kept["ciwl"] > 0.5
        assert sigma > 0.85 * limits["ciwl"] or kept["ciwl"] < 0.1
    page.text(
        rf"""The published model, {copies} runs of {steps:,} steps from ICL ($a = b = c$) and from CIWL ($b = c = d$).
        The threshold from CIWL is {limits["ciwl"]:.4f}; above {limits["icl"]:.4f} ICL that is there stays.
        ICL is learned at the end in"""
    )
    page.lines("\n".join(["", "| noise | from ICL | from CIWL |", "|---|---|---|", *rows, ""]))
    page.text(
        rf"""In between both stay: **noise makes the model bistable**. At noise of 0.006 and more, $p^*$ is
        {min(ratios):.2f} to {max(ratios):.2f} times the measured $p$. Where ICL is gone, $\beta$ drifts at
        {min(drifts):.2f} to {max(drifts):.2f} times the predicted rate from step 20,000 on (what is left of
        the overlap of $a$ adds to $C$). The variance of $\delta$ is
        {np.mean(spreads):.2f} times the predicted one, in the mean over noises."""
    )
    assert max(ratios) < 1.12 and min(ratios) > 0.95 and abs(np.mean(spreads) - 1) < 0.25


def sharpest(ax) -> tuple[int, float]:
    """Curvature along descent at mu_icl = 0 and the first rise of the loss, for the paper's seeds."""
    model = coopetition()
    dense = tm.descend(model, tm.paper_start(model, range(12)), 16_000, mu_icl=0.0)
    runs = dense.isel(time=slice(None, None, 10))
    rise = tm.first_true((dense.loss.diff("time") > 0).sel(time=slice(200, None)))
    largest = curvature(model, runs, mu_icl=0.0).largest
    crossing = tm.first_true(largest.sel(time=slice(200, None)) > 2)
    assert (np.isnan(rise) == np.isnan(crossing)).all() and not (crossing > rise).any()
    crossed = crossing.dropna("seed")
    there = runs.sel(seed=crossed.seed).sel(time=crossed)
    norms, abc = there.target_norm.sel(vector=list("abc")).prod("vector"), there.overlap.sel(vector=list("abc"))
    said = there.loss_ciwl * model.weights["icl"] * norms**2 * (abc**-2.0).sum("vector")
    assert float(abs(said / largest.sel(seed=crossed.seed).sel(time=crossed) - 1).max()) < 0.02
    for seed in range(12):
        spikes = not np.isnan(rise[seed])
        until = slice(0, float(rise[seed]) if spikes else None)
        colour = plotting.COLOURS["ciwl" if spikes else "none"]
        ax.plot(largest.time.sel(time=until), largest[seed].sel(time=until), color=colour, lw=0.8)
        if spikes:
            ax.plot(rise[seed], largest[seed].sel(time=rise[seed], method="nearest"), "o", ms=3, color=colour)
    ax.axhline(2, color=plotting.COLOURS["loss"], ls=":")
    calm = tm.descend(model, tm.paper_start(model, range(12)), 16_000, every=200)
    most = float(curvature(model, calm).largest.sel(time=slice(200, None)).max())
    assert most < 2
    ax.set(yscale="log", xlabel="step", ylabel="largest eigenvalue", ylim=(5e-3, 6))
    plotting.thousands(ax)
    return int((~np.isnan(rise)).sum()), float((rise - crossing).max())


def orders(ax) -> float:
    """Distance of descent from the flow and from the modified flow against the step."""
    model = coopetition()
    start, lrs, times = (
        tm.paper_start(model, 7),
        np.array([0.125, 0.25, 0.5, 1.0]),
        np.array([0.0, 300.0, 600.0, 900.0]),
    )
    distances = {"flow": [], "modified flow": []}
    for lr in lrs.tolist():
        run = tm.descend(model, start, round(900 / lr), lr=lr, every=round(300 / lr))
        for name, order in (("flow", 0.0), ("modified flow", lr)):
            other = modified_flow(model, start, times, order)
            distances[name].append(float(abs(run.overlap.values - other.overlap.values).max()))
    slopes = {name: float(np.polyfit(np.log(lrs), np.log(d), 1)[0]) for name, d in distances.items()}
    for (name, found), colour in zip(distances.items(), ("other", "loss"), strict=True):
        ax.plot(lrs, found, "o-", ms=3.5, color=plotting.COLOURS[colour], label=f"{name}: slope {slopes[name]:.2f}")
    ax.set(xscale="log", yscale="log", xlabel="step size", ylabel="distance of overlaps")
    ax.set_xticks(lrs, [f"{lr:g}" for lr in lrs], minor=False)
    ax.set_xticks([], minor=True)
    ax.legend()
    assert abs(slopes["flow"] - 1) < 0.1 and abs(slopes["modified flow"] - 2) < 0.2
    return slopes["modified flow"]


def remains(ax) -> float:
    """What is left of ICL after CIWL was learned, against the noise."""
    model, copies = coopetition(), 30
    ratio = np.array([0.25, 0.5, 0.7, 1.0, 1.4, 2.0])
    sigma = ratio * noise_threshold(model)
    norms, mu = model.target_norms, model.parameters["mu_icl"]
    whole = {m: math.prod(norms[x] for x in letters) for m, letters in model.mechanisms.items()}
    unlearned = model.weights["icl"] * whole["icl"] ** 2 / 2
    start = tm.aligned_start(model, overlap={"a": 0.05, **dict.fromkeys("bcd", whole["ciwl"] ** (1 / 3))})
    floors, shares = [], []
    for noise_ in sigma.tolist():
        run = tm.descend(model, start.expand_dims(copy=range(copies)), 3_000, every=100, noise=noise_)
        late = run.isel(time=slice(-10, None))
        shares.append(float(late.overlap.sel(vector=list("abc")).prod("vector").mean()) / whole["icl"])
        said = loss_floor(model, "ciwl", noise_, 1.0, float(late.loss_icl.mean()) + mu)
        floors.append(float(late.loss_ciwl.mean()) / said)
    at_threshold = SHARE / (1 - SHARE) * (unlearned / 2 + mu)  # kappa there; it grows as the square of the noise
    line = np.geomspace(sigma[0], sigma[-1], 60)
    kappa = [float(at_threshold) * (v / noise_threshold(model)) ** 2 for v in line]
    predicted = [brentq(lambda x, k=k: x * (unlearned * (1 - x) ** 2 + mu) - k * (1 - x), 0, 1) for k in kappa]
    ax.plot(1e3 * line, predicted, color=plotting.COLOURS["icl"], label="predicted")
    ax.plot(1e3 * sigma, shares, "o", ms=3.5, color=plotting.COLOURS["loss"], label="mean of runs")
    ax.axvline(1e3 * noise_threshold(model), color=plotting.COLOURS["cost"], ls=":")
    ax.set(xlabel="gradient noise (1/1,000)", ylabel="what remains of ICL")
    ax.legend()
    worst = float(np.abs(np.interp(sigma, line, predicted) - shares).max())
    assert worst < 0.12 and np.abs(np.array(floors) - 1).max() < 0.25
    return worst


def fates(ax) -> dict[float, tuple[float, float]]:
    """Emergence and end of ICL from normal starts with noise, and with its drift alone."""
    model, steps, copies = coopetition(), 10_000, 5
    start = tm.random_start(model, range(8))
    found = {}
    for place, sigma in enumerate((0.0, 0.003, 0.006, 0.02)):
        many = start.expand_dims(copy=range(copies if sigma else 1))
        run = tm.measure(tm.descend(model, many, steps, every=20, noise=sigma)).sel(mechanism="icl")
        drift = run
        if sigma:
            drift = tm.measure(tm.descend(model, start, steps, every=20, noise=sigma, drift_only=True))
            drift = drift.sel(mechanism="icl")
        came = run.emergence.notnull()
        lasts = float((came & run.end.isnull()).sum() / came.sum())
        found[sigma] = (float(came.mean()), lasts)
        known = drift.emergence.notnull()
        drifted = float(known.mean()), float((known & drift.end.isnull()).sum() / known.sum())
        for value, alone, colour in zip(found[sigma], drifted, ("shared", "icl"), strict=True):
            ax.plot(place, value, "o", ms=4, color=plotting.COLOURS[colour])
            ax.plot(place, alone, "x", ms=5, color=plotting.COLOURS[colour])
    ax.plot([], [], "o", color=plotting.COLOURS["shared"], label="ICL emerges")
    ax.plot([], [], "o", color=plotting.COLOURS["icl"], label="and is there at the end")
    ax.plot([], [], "x", color=plotting.COLOURS["loss"], label="drift alone")
    ax.set(xlabel="gradient noise", ylabel="share of runs", ylim=(-0.05, 1.3))
    ax.set_xticks(range(4), [f"{sigma:g}" for sigma in found])
    ax.legend(loc="upper left", ncols=2)
    assert found[0.006][1] > found[0.0][1] + 0.3 and found[0.02][0] < found[0.0][0] - 0.2
    return found


def simulations(page: Page) -> None:
    page.section("What it predicts")
    figure, axes = plotting.new(2, 2, 6.8, 5.0)
    spikes, delay = sharpest(axes[0, 0])
    orders(axes[0, 1])
    worst = remains(axes[1, 0])
    found = fates(axes[1, 1])
    plotting.panel_letters(axes.flat)
    page.figure(
        figure,
        f"""(a) Largest eigenvalue along descent with step 1 at mu_icl = 0, the paper's seeds 0 to 11, until the
        loss first rises (dots): it does for {spikes} of 12 seeds, those whose eigenvalue crosses 2 (dotted), at
        most {delay:,.0f} steps later; at mu_icl = 0.1 it never crosses. The formula above is right to 2 % at
        the crossings. (b) Distance of descent from the flow and from the modified flow, seed 7, until t = 900.
        (c) What is left of ICL 3,000 steps after CIWL was learned, against gradient noise: within {worst:.2f}
        of the prediction; dotted: the threshold. (d) Eight normal starts, five runs of each with noise, 10,000
        steps: share in which ICL emerges ({found[0.0][0]:.0%} without noise, {found[0.02][0]:.0%} at 0.02) and,
        of these, in which it is still there at the end ({found[0.0][1]:.0%} without noise,
        {found[0.006][1]:.0%} at 0.006); crosses: with the drift of the residuals alone.""",
    )
    page.text(
        r"""*Emergence.* On the plateau the shared vectors are small and damp little, so noise lets the residuals
        grow, by $(n_x-1)s^2$ a unit of time, most of all that of the long vector $d$: its residual, and not its
        overlap, then damps $a$ through the cost and $b$, $c$ through CIWL's loss, and ICL emerges less often.
        The drift of the residuals alone gives about the same shares. *Lifetime.* Noise above the threshold
        keeps ICL."""
    )


def build() -> Page:
    page = Page(
        __file__,
        "Discrete steps and noise",
        [
            "The loss is a function of mechanisms and costs, as in [the exact reduction](reduction.md).",
            r"Plain descent with the step $\eta$; noise as in [the extended reduction](reduction_extended.md).",
            r"For the floor and the threshold: settled states, $\mu_2 = 0$, $\eta$ well below the largest stable step, "
            "balanced norms.",
        ],
    )
    page.section("Statement")
    page.text(
        r"""The spectrum of the Hessian of all entries closes on the coordinates, and with it the largest stable
        step. Where $\mu_1 = 0$ the valley of ICL sharpens without end, so that descent with any step meets its
        edge: the late spikes of the paper's runs. A finite step is, to first order, a flow on a loss with
        $\frac\eta4|\nabla L|^2$ added. Gradient noise gives every learned mechanism a floor, and above a small
        threshold that floor keeps ICL from being displaced."""
    )
    spectrum(page)
    stability(page)
    modified(page)
    noise(page)
    long_times(page)
    lasting(page)
    simulations(page)
    page.section("Limits")
    page.text(
        r"""The time from the crossing to the first rise of the loss is not predicted: it depends on how much of the
        sharp direction is in the error. The thresholds are those of mean states; how long chance
        takes to carry a run from one to the other is not predicted, nor when ICL comes back for $n_d < n_a + n_b$ (the
        drift alone gives that to a factor of two). The effect of noise on emergence is
        explained, and measured, but not given in closed form."""
    )
    page.section("What is new and what is textbook")
    page.text(
        """The modified flow of second order is that of Barrett & Dherin (2021, arXiv 2009.11162), and the edge of
        stability that of Cohen et al. (2021, 2103.00065). New here: both close on the reduced coordinates, and noise
        that keeps a learned mechanism's loss at a floor keeps its competitor alive."""
    )
    return page


if __name__ == "__main__":
    build().write()
