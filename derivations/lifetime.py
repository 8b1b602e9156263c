"""The lifetime of ICL: the slow manifold after its emergence, four stages on it, and the fold at which ICL ends."""

from __future__ import annotations

from typing import Any

import numpy as np
import sympy as sp
from page import Page

import toymodel as tm
from toymodel import plotting
from toymodel.reduction import symbols, terms
from toymodel.theory import compiled
from toymodel.theory import lifetime as theory

MODEL = tm.coopetition(mu_ciwl=0.0)
PLANES, WEIGHTS, PARAMETERS = symbols(MODEL.form)
A, B, C, D = (PLANES[x].u for x in "abcd")
ALPHA, MU, OTHER_MU = (PARAMETERS[name] for name in ("alpha", "mu_icl", "mu_ciwl"))
WC, W2 = WEIGHTS["cost"], WEIGHTS["ciwl"]
S1, S2 = theory.target("abc"), theory.target("dbc")
ALIGNED = {PLANES[x].v: 0 for x in "abcd"} | {OTHER_MU: 0}
LOSS = compiled.loss(MODEL.form).subs(ALIGNED)
E1, E2, P = theory.MISSING
P0 = sp.Symbol("p0", positive=True)


def drift(page: Page) -> None:
    page.section("Drift: the cost holds d down")
    cost = terms(MODEL.form, PLANES, WEIGHTS)["cost"].subs(ALIGNED)
    flow = {x: -sp.diff(LOSS, x) for x in (A, B, C, D)}
    change = 2 * (A * flow[A] + D * flow[D] - B * flow[B])
    page.text(r"""On $abc = S_{icl}$ the slopes of the mechanism vanish and only the cost moves what is left:""")
    page.check(r"$\frac{d}{dt}(a^2 + d^2 - b^2) = -8\alpha C$", change, -8 * ALPHA * cost)
    page.check(r"and this is $-4\alpha w_C a^2d^2$, the rate of the library", change, theory.drift_rate())
    slaved = theory.slaved_overlap()
    page.text(r"""$d$ follows at once: $\partial L/\partial u_d = 0$ on the manifold gives""")
    page.equation("d", slaved)
    slope = sp.diff(LOSS, D).subs(A, S1 / (B * C))
    page.check(r"the slope of the loss in $d$ vanishes there", slope.subs(D, slaved) + S1, S1)
    side = sp.sqrt(S1 / A)
    on = {B: side, C: side}
    leading = sp.limit(slaved.subs(on) / MU, MU, 0)
    page.equation(r"d / \mu_{icl}\;(\mu_{icl}\to0,\ b=c)", leading)
    a0 = sp.Symbol("a0", positive=True)
    law = theory.drift_prefactor() * ALPHA / MU**2
    rate = theory.drift_rate().subs(D, MU * leading)
    per_a = sp.diff(A**2 - side**2, A) / rate
    page.check("the time from $a_0$ to $0$ is the integral of this", sp.diff(law, a0), -per_a.subs(A, a0))
    page.equation("T_{drift}", law)
    page.text(
        r"""CIWL cannot start while the cost takes from $d$ what its small drive $\mu_{icl}$ gives: $a$ has to fall
        first,
        and its fall is proportional to $d^2 \propto (\mu_{icl}/\alpha)^2$ times $\alpha$. That is the law
        $\alpha/\mu_{icl}^2$."""
    )


def relaxation(page: Page) -> None:
    page.section("Relaxation: CIWL is learned")
    page.text(
        r"""Where the drive of CIWL is stronger than the cost, CIWL is learned as if there were no competition: this
        stage is the orbit of $\alpha = 0$, on which $a^2 + d^2 - b^2$ is conserved. It is integrated once for each
        $\mu_{icl}$, whatever $\alpha$; $\alpha$ says where it is left."""
    )
    free = {ALPHA: 0}
    flow = {x: -sp.diff(LOSS, x).subs(free) for x in (A, B, C, D)}
    page.check(
        r"$a^2 + d^2 - b^2$ is conserved for $\alpha = 0$", 2 * (A * flow[A] + D * flow[D] - B * flow[B]) + S1, S1
    )


def coexistence(page: Page) -> None:
    page.section("Coexistence, and the fold that ends it")
    page.text(
        r"""Now both are learned, $abc = S_{icl} - e_1$ and $dbc = S_{ciwl} - e_2$ with small $e$. The product of the
        losses drives each mechanism by what the *other* has left, so each needs the other to be imperfect. With
        $p = bc$, the slopes in $d$ and $a$ vanish for"""
    )
    fourth, missing = theory.balance()
    page.equation("e_2", missing)
    page.equation("p^4", fourth)
    both = {C: P / B, A: (S1 - E1) / P, D: (S2 - E2) / P}
    learned = {C: P / B, A: S1 / P, D: S2 / P}
    for x, name in ((D, "d"), (A, "a")):
        slope = sp.diff(LOSS, x)
        held = slope.subs(ALPHA, 0)
        near = held.subs(both) + (slope - held).subs(learned)
        value = near.subs(E2, missing)
        if name == "a":
            value = sp.simplify(value).subs(P, fourth ** sp.Rational(1, 4))
        page.check(f"the slope in ${name}$ vanishes, to leading order in $e$", value + S1, S1)
    page.text(
        r"""As $p$ grows the loss of CIWL falls as $e_2^2 \propto p^{-8}$, and with it what holds $a$. The
        right-hand side above has a maximum over $e_1$, at $e_1^2 = 2\mu_{icl}/3w_{icl}$: the slow manifold *folds*, and
        beyond the fold nothing balances the pull of the cost on $a$."""
    )
    page.check("the maximum", sp.diff(fourth, E1).subs(E1, sp.sqrt(2 * MU / (3 * WEIGHTS["icl"]))) + S1, S1)
    page.equation(r"p_{fold}", theory.fold())
    page.check("the value at the maximum", theory.fold() ** 4, fourth.subs(E1, sp.sqrt(2 * MU / (3 * WEIGHTS["icl"]))))
    time = theory.coexistence()
    page.text(r"""On the manifold $a = S_{icl}/p$, $d = S_{ciwl}/p$, and the same drift carries $p$ on:""")
    whole: Any = sp.factor(time.subs(P0, 0))
    page.equation("T_{coexistence}(p_0 \\to p)", r"F(p) - F(p_0)")
    page.equation("F(p)", whole)
    page.check("this is the form in the library", time, whole - whole.subs(P, P0))
    a, d = S1 / P, S2 / P
    speed = sp.diff(a**2 + d**2 - P, P) / theory.drift_rate().subs({A: a, D: d})
    page.check("it is the integral of the drift", sp.diff(time, P), speed)
    leading = sp.limit(time.subs(P0, 0) / P**5, P, sp.oo) * theory.fold() ** 5
    page.check(
        r"with $p_{fold}$ it is proportional to $\alpha^{1/4}\mu_{icl}^{-15/8}$",
        leading.subs({ALPHA: 16 * ALPHA, MU: 2**8 * MU}),
        leading * 2 / 2**15,
    )
    page.text(
        r"""So the approach to the leading law is slow: against $\alpha/\mu_{icl}^2$ this stage is smaller by
        $\alpha^{-3/4}\mu_{icl}^{1/8}$ only, and the measured exponent in $\alpha$ stays below 1 at any $\mu_{icl}$ that
        one can simulate."""
    )


def decay(page: Page) -> None:
    page.section("Decay: the cost takes a down")
    prefactor = theory.decay_prefactor()
    page.text(
        r"""With the loss of CIWL near zero nothing holds $a$: $\dot a = -\alpha w_C d^2 a$, while $dbc = S_{ciwl}$
        goes on
        holding. The exact integral uses that $a^2 - d^2 + p$ is conserved there. From a small start, and where the
        other
        stages are short, $p = (S_{icl}^2 + S_{ciwl}^2)^{1/3}$, and the time until the loss of ICL is half of its
        unlearned value, $abc = (1 - 1/\sqrt2) S_{icl}$, is about"""
    )
    page.equation("T_{decay}", prefactor / ALPHA)
    p = (S1**2 + S2**2) ** sp.Rational(1, 3)
    page.check(
        r"rate times time is $-\ln(1 - 1/\sqrt2)$",
        prefactor / ALPHA * ALPHA * WC * (S2 / p) ** 2,
        -sp.log(theory.LEFT),
    )
    flow = {x: -sp.diff(LOSS, x) for x in (A, B, C, D)}
    start = {C: S2 / (B * D)}
    change = (2 * (A * flow[A] + B * flow[B] - D * flow[D])).subs(start).subs(B, sp.sqrt(S2 / D))
    page.check(r"$a^2 - d^2 + b^2$ is conserved on $dbc = S_{ciwl}$, $b = c$", change + S1, S1)


def build() -> Page:
    page = Page(
        __file__,
        "The lifetime of in-context learning",
        [
            "The paper's loss, with $\\mu_{ciwl} = 0 < \\mu_{icl}$ and $\\alpha > 0$; gradient flow.",
            "No residuals; overlaps that are small and positive at the start, $b = c$.",
            "$\\alpha$ is small against the rates at which the mechanisms are learned.",
        ],
    )
    page.section("Statement")
    page.text(
        r"""ICL always ends. Its lifetime is the sum of four stages, each dominant somewhere in the plane of $\alpha$
        and
        $\mu_{icl}$:"""
    )
    page.lines(
        r"""
| stage | what happens | time |
|---|---|---|
| drift | the cost holds $d$ near zero; $a$ falls slowly | $A\,\alpha/\mu_{icl}^2$ |
| relaxation | CIWL is learned, on the orbit of $\alpha = 0$ | independent of $\alpha$ but for its end |
| coexistence | both are learned; the slow manifold is followed to its fold | $B\,\alpha^{1/4}/\mu_{icl}^{15/8}$ |
| decay | CIWL has taken over, the cost takes $a$ down | $C/\alpha$ |
"""
    )
    for stage in (drift, relaxation, coexistence, decay):
        stage(page)
    page.section("The alpha that ends ICL soonest")
    x, first, last = sp.symbols("alpha A C", positive=True)
    best = sp.nsimplify(theory.best_alpha(MU, first, last))
    page.text(r"""Drift grows with $\alpha$ and decay falls with it. Their sum is least at $\mu_{icl}\sqrt{C/A}$:""")
    page.check(
        "its derivative vanishes there", sp.diff(first * x / MU**2 + last / x, x).subs(x, best) + first / MU, first / MU
    )
    page.text(
        r"""What $\mu_{ciwl}$ does: with $\mu_{ciwl} > 0$ the hold on $a$ never falls below $\mu_{ciwl}$ times its
        stiffness. If that is more than the pull of the cost, $\mu_{ciwl} w_{icl} p^2 > \alpha w_C d^2$, ICL stays (see
        [asymptotics](asymptotics.md))."""
    )
    page.section("Prediction and simulation")
    start = tm.aligned_start(MODEL, overlap=0.1)
    grid = dict(alpha=list(np.geomspace(3e-3, 0.3, 5)), mu_icl=list(np.geomspace(1e-4, 1, 9)))
    predicted = tm.lifetime(MODEL, start, **grid)
    horizon = 5e3 + 3 * float(predicted.lifetime.max())
    runs = tm.flow(MODEL, start, horizon, times=np.geomspace(300, horizon, 3000), method="LSODA", rtol=1e-8, **grid)
    measured = tm.measure(runs).lifetime.sel(mechanism="icl", drop=True)
    error = abs(predicted.lifetime / measured - 1)
    figure, (left, right) = plotting.new(1, 2, 7.0, 3.0)
    for alpha, colour in zip(grid["alpha"], ("light", "icl", "shared", "other", "ciwl"), strict=True):
        one = predicted.lifetime.sel(alpha=alpha)
        left.loglog(one.mu_icl, one, color=plotting.COLOURS[colour], label=f"alpha = {alpha:.2g}")
        left.loglog(one.mu_icl, measured.sel(alpha=alpha), "o", color=plotting.COLOURS[colour], ms=3)
    left.set(xlabel="mu_icl", ylabel="lifetime of ICL (time)")
    left.legend()
    shares = {stage: predicted[stage].sel(alpha=grid["alpha"][2]) / predicted.lifetime.sel(alpha=grid["alpha"][2])
              for stage in theory.STAGES}  # fmt: skip
    colours = [plotting.COLOURS[name] for name in ("icl", "light", "shared", "ciwl")]
    right.stackplot(shares["drift"].mu_icl, *shares.values(), labels=list(shares), colors=colours)
    right.set(
        xscale="log", xlabel="mu_icl", ylabel=f"share of the lifetime, alpha = {grid['alpha'][2]:.2g}", ylim=(0, 1)
    )
    right.legend(loc="center right", frameon=True)
    median, most = float(error.median()), float(error.quantile(0.95))
    page.claim("the median error is below 10 %, the 95th percentile below 30 %", median < 0.1 and most < 0.3)
    page.figure(
        figure,
        f"""Left: lifetime predicted (lines) and measured by gradient flow (dots), {error.size} points, median error
        {median:.1%}, 95th percentile {most:.1%}. Right: the share of each stage. A larger grid:
        `benchmarks/theory_lifetime.py`.""",
    )
    page.section("Limits")
    page.text(
        r"""Starts with residuals, or with $b \ne c$, change the constants of the stages and not their laws. The
        errors are
        largest where two stages overlap (drift and relaxation, $\mu_{icl}$ small and $\alpha$ small), and where
        $\alpha$
        is not small against the rates of learning ($\alpha$ near 0.3 and $\mu_{icl}$ near 1, where ICL is not complete
        before it decays)."""
    )
    return page


if __name__ == "__main__":
    build().write()
