"""Weight decay: true fixed points, their folds, the persistence of ICL and the bistability of ICL and CIWL.

Everything is derived from the reduced loss of `with_weight_decay(coopetition())`; branches of the full equations are
followed numerically and compared with the closed forms.
"""

from __future__ import annotations

import numpy as np
import sympy as sp
from page import Page, assert_equal

import toymodel as tm
from toymodel import plotting
from toymodel.model import Model
from toymodel.presets import coopetition
from toymodel.reduction import mechanism_loss, reduced_loss, symbols
from toymodel.theory.arrays import function
from toymodel.theory.branches import branch
from toymodel.theory.equilibria import fixed_points
from toymodel.theory.weight_decay import (
    MOST_DRIVE,
    POSITIVE,
    ciwl_limit_expression,
    decay_thresholds,
    drive_expression,
    icl_threshold_expression,
    learning_limit_expression,
    with_weight_decay,
)

W1, W2, WC, S1, S2, MU1, ALPHA = sp.symbols(" ".join(POSITIVE), positive=True)
A, D, P, LAMBDA, UNLEARNED = sp.symbols("a d P lambda l2", positive=True)


def model() -> Model:
    return with_weight_decay(coopetition())


def loss() -> tuple[sp.Expr, dict]:
    """The reduced loss with mu2 = 0 and weights of decay 1, and the planes."""
    planes, weights, parameters = symbols(model().form)
    named = {weights["icl"]: W1, weights["ciwl"]: W2, weights["cost"]: WC}
    named |= {weights[f"decay_{x}"]: sp.Integer(1) for x in "abcd"}
    named |= {parameters["mu_icl"]: MU1, parameters["mu_ciwl"]: 0, parameters["alpha"]: ALPHA}
    named |= {parameters["decay"]: LAMBDA}
    return sp.sympify(reduced_loss(model().form, planes, weights, parameters)).subs(named), planes


def slopes() -> dict[str, sp.Expr]:
    """dL/du of a, d and b where there are no residuals and b = c = sqrt(P); targets as products S1, S2."""
    whole, planes = loss()
    shared = planes["b"].target * planes["c"].target
    there = {planes[x].v: 0 for x in "abcd"}
    place = {planes["a"].u: A, planes["d"].u: D, planes["b"].u: sp.sqrt(P), planes["c"].u: sp.sqrt(P)}
    norms = {planes["a"].target: S1 / shared, planes["d"].target: S2 / shared}
    found = {x: sp.diff(whole, planes[x].u).subs(there).subs(place).subs(norms) for x in "abd"}
    return {x: sp.expand(sp.simplify(slope)) for x, slope in found.items()}


def isolated(page: Page) -> None:
    """No residuals, balanced norms."""
    page.section("What weight decay does to equilibria")
    whole, planes = loss()
    square = {x: planes[x].u ** 2 + planes[x].v ** 2 for x in "abcd"}
    l1, l2 = sp.symbols("L1 L2", nonnegative=True)
    damping = {
        "a": l2 * W1 * square["b"] * square["c"] + ALPHA * WC * square["d"] + LAMBDA,
        "d": (l1 + MU1) * W2 * square["b"] * square["c"] + ALPHA * WC * square["a"] + LAMBDA,
        "b": (l2 * W1 * square["a"] + (l1 + MU1) * W2 * square["d"]) * square["c"] + LAMBDA,
    }
    inside = {l1: mechanism_loss([planes[x] for x in "abc"], W1), l2: mechanism_loss([planes[x] for x in "dbc"], W2)}
    page.text(
        r"""*No residuals.* $\partial L/\partial v_x = A_x v_x$ with a sum of terms that are not negative, and
        $\lambda$: so
        $v_x = 0$ at every equilibrium. For $a$, with $L_2$ short for the loss of CIWL, $A_a = L_2 w_1|b|^2|c|^2 +
        \alpha
        w_c|d|^2 + \lambda$."""
    )
    for x, value in damping.items():
        assert_equal(sp.diff(whole, planes[x].v), value.subs(inside) * planes[x].v, f"damping of {x}")
    page.claim("the slopes in $v_a$, $v_d$ and $v_b$ are these", True)
    found = slopes()
    page.text(
        r"""*Balanced.* The combinations of [squared norms](conserved.md) that only costs change now have to stand
        still:
        $|b| = |c|$, and with $P = |b||c|$"""
    )
    page.equation("P", r"a^2 + d^2 + \frac{2\alpha w_c}{\lambda}a^2d^2")
    page.check(
        r"$a\,\partial_aL + d\,\partial_dL - b\,\partial_bL$ vanishes there",
        A * found["a"] + D * found["d"] - sp.sqrt(P) * found["b"],
        LAMBDA * (A**2 + D**2 - P) + 2 * ALPHA * WC * A**2 * D**2,
    )
    page.text("Two slopes and this relation are left, for $a$, $d$ and $P$; the families of equilibria are gone.")


def learning(page: Page) -> None:
    """One mechanism alone."""
    page.section("One mechanism: where learning ends")
    u, n = sp.symbols("u n", positive=True)
    page.text(
        r"""One mechanism of $n$ vectors, $\frac w2(S - \prod u)^2 + \frac\lambda2\sum u^2$, has the balanced equilibria
        $u = 0$
        and $\lambda = w(S - u^n)u^{n-2}$. For $n \ge 3$ the right-hand side has a maximum: two equilibria, a node and a
        saddle, meet in a fold. Zero is stable for every $\lambda > 0$: nothing is learned from small starts."""
    )
    curve = W1 * (S1 - u**n) * u ** (n - 2)
    for count in (3, 4, 5):
        at = (S1 * sp.Rational(count - 2, 2 * count - 2)) ** sp.Rational(1, count)
        value = curve.subs(n, count)
        assert_equal(1 + sp.diff(value, u).subs(u, at), 1, "slope at the fold")
        limit = learning_limit_expression(count).subs(
            {sp.Symbol("w", positive=True): W1, sp.Symbol("S", positive=True): S1}
        )
        assert_equal(value.subs(u, at), limit, f"fold of {count} vectors")
    page.equation(r"\lambda_{max}", learning_limit_expression(3))
    page.claim("for 3, 4 and 5 vectors the maximum is at $u^n = S(n-2)/(2n-2)$ and has this height", True)
    page.text(
        r"""In the product of losses the weight of ICL is multiplied by the loss of CIWL, $\ell_2 = w_2S_2^2/2$ while
        CIWL is
        not learned."""
    )


def icl(page: Page) -> None:
    """The fold below which ICL gives way."""
    page.section("ICL persists above a rate of decay")
    found, order = slopes(), sp.Symbol("epsilon", positive=True)
    page.text(
        r"""Without weight decay ICL is transient: the cost makes $a^2 + d^2 - b^2$ fall at $8\alpha C$. Weight decay
        pushes
        the other way, with $2\lambda(b^2 - a^2 - d^2)$. Where the two balance, ICL stays. On its manifold, $aP = S_1$
        (up to
        order $\lambda$), CIWL's part is held where"""
    )
    on = {A: S1 / P}
    held = sp.solve(sp.expand(found["d"].subs(on)), D)
    assert len(held) == 1
    page.equation("d", sp.factor(held[0]))
    leading = sp.limit(held[0].subs({MU1: order * MU1, LAMBDA: order**2 * LAMBDA}) / order, order, 0)
    page.text(
        r"""Let $\mu_1 = \epsilon\mu_1$, $\lambda = \epsilon^2\lambda$ with a small $\epsilon$. To leading order $d$ and
        the
        balance become"""
    )
    page.equation("d", leading)
    balance = A**2 + order**2 * D**2 + 2 * ALPHA * WC * A**2 * D**2 / LAMBDA - P
    rate = sp.solve(balance.subs(order, 0).subs(on).subs(D, leading), LAMBDA)
    assert len(rate) == 1
    page.equation(r"\lambda(P)", sp.factor(rate[0]))
    at = (2 * S1**2) ** sp.Rational(1, 3)
    page.check(r"$d\lambda/dP = 0$ where $P^3 = 2S_1^2$", 1 + sp.diff(rate[0], P).subs(P, at), 1)
    page.claim(
        "it is a minimum",
        bool(sp.diff(rate[0], P, 2).subs(P, at).subs({s: 1 for s in (W2, WC, S1, S2, MU1, ALPHA)}) > 0),
    )
    page.equation(r"\lambda_{icl}", icl_threshold_expression())
    page.check("its value", rate[0].subs(P, at), icl_threshold_expression())
    page.text(
        r"""**ICL persists for $\lambda > \lambda_{icl}$ and gives way below.** The threshold does not depend on
        $w_1$ or
        $S_1$. It is the inverse of the lifetime without decay, which grows as $\alpha/\mu_1^2$, up to a factor: decay
        keeps ICL when it renews the shared vectors faster than the cost wears ICL down."""
    )
    page.text(
        r"""What has to be small for this is the drive of $d$ by $\mu_1$ against the pull of the cost on it. With
        $a^3 = S_1$, $P = a^2$,"""
    )
    held = sp.Poly(sp.expand(found["d"].subs(on).subs(LAMBDA, 0)), D).coeff_monomial(D)
    drive, pull = (held.subs({other: 0}).subs(P, S1 ** sp.Rational(2, 3)) for other in (ALPHA, MU1))
    page.equation(r"\delta", drive_expression())
    page.check("the ratio of the two parts of the damping of $d$", drive / pull, drive_expression())
    paper = {W2: sp.Rational(1, 64000), WC: sp.Rational(1, 3200), S1: sp.Integer(20) ** sp.Rational(3, 2)}
    page.check(r"at the paper's dimensions $\delta = \mu_1/\alpha$", drive_expression().subs(paper), MU1 / ALPHA)


def ciwl(page: Page) -> None:
    """The fold above which CIWL is lost."""
    page.section("CIWL survives below a rate of decay")
    found = slopes()
    x, miss = sp.symbols("x e", positive=True)
    l1 = W1 * S1**2 / 2
    page.text(
        r"""With $\mu_2 = 0$ CIWL would leave ICL no slope at all. Weight decay leaves it a little: $S_2 - dP = e > 0$,
        so
        $L_2 = w_2e^2/2$ drives $a$, and what ICL then learns, a share $x = aP/S_1$, takes slope from CIWL, which makes
        $e$
        larger. Put $aP = xS_1$, so that $L_1 = \ell_1(1-x)^2$, and $d P = S_2 - e$."""
    )
    down = found["d"].subs(A, x * S1 / P).subs(D, (S2 - miss) / P)
    first = l1 * (1 - x) ** 2
    exact = -(first + MU1) * W2 * miss * P + (ALPHA * WC * (x * S1 / P) ** 2 + LAMBDA) * (S2 - miss) / P
    page.check("the slope in $d$", down, exact)
    up = found["a"].subs(A, x * S1 / P).subs(D, (S2 - miss) / P)
    exact = -(W2 * miss**2 / 2) * W1 * S1 * (1 - x) * P + (ALPHA * WC * ((S2 - miss) / P) ** 2 + LAMBDA) * x * S1 / P
    page.check("the slope in $a$", up, exact)
    page.text(
        r"""To leading order in $e/S_2$ and $a/d$: $d = S_2/P$, $P = d^2 = S_2^{2/3}$, $e = \lambda
        d/((L_1+\mu_1)w_2P)$.
        With $A = \alpha w_cd^2$ the slope in $a$ then vanishes where"""
    )
    size = S2 ** sp.Rational(1, 3)
    missing = LAMBDA * size / ((first + MU1) * W2 * size**2)
    left = W2 * missing**2 / 2 * W1 * size**4 * (1 - x) / x
    scaled, m = sp.Symbol("f"), MU1 / l1
    gain = size**2 * W1 / (2 * W2 * l1**2)
    page.equation(
        r"\frac{w_1 d^2}{2w_2\ell_1^2}\,\frac{\lambda^2}{f(x)}",
        r"A + \lambda,\qquad f(x) = \big((1-x)^2 + \mu_1/\ell_1\big)^2\,\frac{x}{1-x}",
    )
    share = ((1 - x) ** 2 + m) ** 2 * x / (1 - x)
    page.check("the left-hand side", left, gain * LAMBDA**2 / share)
    peak = share.subs(MU1, 0)
    page.text(
        r"""$\lambda$ grows with $f$, so CIWL ends where $f$ has its maximum: a fold at $x = \frac14$ for $\mu_1 = 0$
        (and at that
        $x$ to first order in $\mu_1/\ell_1$), when ICL has got back a quarter of its product:"""
    )
    page.check("$f' = 0$ at $x = 1/4$", 1 + sp.diff(peak, x).subs(x, sp.Rational(1, 4)), 1)
    page.claim("it is the maximum on 0..1", peak.subs(x, sp.Rational(1, 4)) == sp.Rational(27, 256))
    cost = ALPHA * WC * size**2
    top = share.subs(x, sp.Rational(1, 4))
    roots = sp.solve(gain / scaled * LAMBDA**2 - cost - LAMBDA, LAMBDA)
    (positive,) = [r for r in roots if r.subs({s: 1 for s in r.free_symbols}) > 0]
    page.equation(
        r"\lambda_{ciwl}",
        r"\frac{1 + \sqrt{1 + 4KA}}{2K},\qquad K = \frac{3 w_1 S_2^{2/3}}{2 w_2\ell_1^2(9/16 + \mu_1/\ell_1)^2}",
    )
    page.check("the root", positive.subs(scaled, top), ciwl_limit_expression())


def icl_threshold(mu: float, alpha: float) -> float:
    """The closed form, also where `decay_thresholds` gives NaN."""
    norms, weights = coopetition().target_norms, coopetition().weights
    product = norms["d"] * norms["b"] * norms["c"]
    return function(icl_threshold_expression())(w2=weights["ciwl"], wc=weights["cost"], S2=product, mu1=mu, alpha=alpha)


def ciwl_limit(mu: float, alpha: float) -> float:
    """lambda_ciwl of the paper's model also where `decay_thresholds` says NaN."""
    here, product = coopetition(), np.prod([coopetition().target_norms[x] for x in "bc"])
    numbers = {name: here.weights[t] for name, t in (("w1", "icl"), ("w2", "ciwl"), ("wc", "cost"))}
    numbers |= {"S1": here.target_norms["a"] * product, "S2": here.target_norms["d"] * product}
    return float(function(ciwl_limit_expression())(**numbers, mu1=mu, alpha=alpha))


def folds(mu: float, alpha: float) -> dict[str, float]:
    """The folds of the full equations: of ICL, of CIWL, and of learning; NaN where there is none."""
    here = model().with_parameters(mu_icl=mu, alpha=alpha)
    least = icl_threshold(mu, alpha) / 3
    begin = {"icl": (3e-3, {"a": 4.4, "b": 4.4, "c": 4.4, "d": 0.2}, least)}
    limit = ciwl_limit(mu, alpha)
    begin["ciwl"] = (limit / 3, {"a": 0.0, "b": 6.3, "c": 6.3, "d": 6.3}, limit / 5)
    found = {}
    for name, (rate, overlap, low) in begin.items():
        point = fixed_points(here, tm.aligned_start(here, overlap=overlap), flow_time=0, decay=rate)
        curve = branch(here, point.isel(point=0), "decay", (low, 0.1), log=True, step=0.04, decay=rate)
        fold = curve.isel(point=np.flatnonzero(curve.kind == "fold"))
        shared = fold.overlap.sel(vector="b") * fold.overlap.sel(vector="c")
        shares = {x: fold.overlap.sel(vector=x) * shared / (here.target_norms[x] * 20) for x in "ad"}
        found[name] = (fold.decay.values, shares["a"].values, shares["d"].values)
    rates, _, of_d = found["icl"]
    top = int(rates.argmax())  # the fold of ICL is the next one on the branch, if CIWL is not learned there
    beside = [i for i in (top - 1, top + 1) if 0 <= i < len(rates) and found["icl"][1][i] > 0.7 and of_d[i] < 0.5]
    last = found["ciwl"][0][(found["ciwl"][1] < 0.5) & (found["ciwl"][2] > 0.7)]
    return {
        "icl": float(rates[beside[0]]) if beside else np.nan,
        "ciwl": float(last[0]) if len(last) else np.nan,
        "learning": float(rates[top]),
    }


def compare(page: Page) -> None:
    page.section("What it predicts")
    alphas, ratios = (0.01, 0.1, 1.0), np.geomspace(3e-4, 0.02, 4)
    plain = coopetition()
    figure, axes = plotting.new(1, 2, 6.6, 2.8)
    markers = dict(zip(alphas, "os^", strict=True))
    errors = {"icl": [], "ciwl": [], "learning": []}
    names = {"icl": "ICL", "ciwl": "CIWL", "learning": "all learning"}
    colours = {"icl": "icl", "ciwl": "ciwl", "learning": "shared"}
    for alpha in alphas:
        for ratio in ratios.tolist():
            mu = ratio * alpha
            found = folds(mu, alpha)
            said = decay_thresholds(plain, mu_icl=mu, alpha=alpha)
            for name, value in found.items():
                axes[0].plot(said[name], value, markers[alpha], ms=3.5, color=plotting.COLOURS[colours[name]])
                error = float(value / said[name] - 1)
                axes[1].plot(ratio, abs(error), markers[alpha], ms=3.5, color=plotting.COLOURS[colours[name]])
                errors[name].append((ratio, abs(error)))
    assert max(error for ratio, error in errors["icl"] if ratio <= 0.004) < 0.03
    last, beyond = (folds(ratio * 0.1, 0.1)["icl"] for ratio in (0.9 * MOST_DRIVE, 1.2 * MOST_DRIVE))
    page.claim(
        rf"at $\alpha = 0.1$ ICL has a fold at $\delta = {0.9 * MOST_DRIVE:.3g}$ and none at ${1.2 * MOST_DRIVE:.3g}$",
        bool(np.isfinite(last) and np.isnan(beyond)),
    )
    worst = {name: np.nanmax([error for _, error in errors[name]]) for name in ("ciwl", "learning")}
    assert worst["ciwl"] < 0.1 and worst["learning"] < 0.02
    ends = [1e-10, 1e-1]
    axes[0].plot(ends, ends, ":", color=plotting.COLOURS["loss"])
    axes[0].set(
        xscale="log", yscale="log", xlabel="rate of decay at the fold, predicted", ylabel="of the full equations"
    )
    axes[1].set(xscale="log", yscale="log", xlabel="mu_icl / alpha", ylabel="relative error")
    for name, colour in colours.items():
        axes[0].plot([], [], "o", ms=3.5, color=plotting.COLOURS[colour], label=f"end of {names[name]}")
    for alpha, marker in markers.items():
        axes[1].plot([], [], marker, ms=3.5, color=plotting.COLOURS["none"], label=f"alpha = {alpha:g}")
    for ax in axes:
        ax.legend()
    plotting.panel_letters(axes)
    page.figure(
        figure,
        f"""Folds of the full equations, followed with `tm.theory.branch`, against the closed forms, for the paper's
        dimensions and target norms sqrt(n). (a) All folds; each symbol is a value of alpha (legend in b). (b) The error
        of
        $\\lambda_{{icl}}$ falls in proportion to $\\mu_1/\\alpha$; $\\lambda_{{ciwl}}$ is right to {worst["ciwl"]:.0%}
        and
        $\\lambda_{{max}}$ to {worst["learning"]:.1%}.""",
    )


def paper() -> str:
    """The branch at the paper's values."""
    here, said = model(), decay_thresholds(coopetition())
    start = tm.aligned_start(here, overlap={"a": 4.0, "b": 4.0, "c": 4.0, "d": 0.5})
    curve = branch(
        here, fixed_points(here, start, decay=8e-3).isel(point=0), "decay", (1e-4, 0.1), log=True, decay=8e-3
    )
    fold = curve.decay[curve.kind == "fold"].values
    stable = curve.isel(point=np.flatnonzero((curve.stability == "stable") & (curve.loss_ciwl > 0.25)))
    stable = stable.isel(point=np.flatnonzero(stable.loss_icl < 0.25))
    assert fold.size == 3 and stable.sizes["point"] > 5
    return f"""At the paper's values, $\\alpha = \\mu_1 = 0.1$, CIWL ends at a rate of {max(fold[:2]):.2g} (formula:
    {said["ciwl"]:.2g})
        and all learning at {fold.max():.3g} (formula: {said["learning"]:.3g}). From {float(stable.decay.min()):.2g} to
        {float(stable.decay.max()):.2g} the stable state has ICL learned and CIWL not (losses below and above half of
        their
        unlearned values): weight decay makes ICL persist there, too."""


def build() -> Page:
    page = Page(
        __file__,
        "Weight decay: persistence and bistability",
        [
            r"The published model with $\frac\lambda2\sum_x|x|^2$ added, $\mu_2 = 0$, $\alpha > 0$; gradient flow.",
            r"For the threshold of ICL: $\mu_1/\alpha$ small, $\lambda$ small against the rates of learning.",
            r"For the limit of CIWL: $\mu_1$ small against $\ell_1$, $S_2 - dbc$ small against $S_2$.",
        ],
    )
    page.section("Statement")
    page.lines(
        r"""| rate of decay, if $\mu_1 w_2S_1^{2/3} < 0.05\,\alpha w_c$ | stable |
|---|---|
| $\lambda < \lambda_{icl}$ | CIWL, and just below the threshold a mixture of both: ICL is transient |
| $\lambda_{icl} < \lambda < \lambda_{ciwl}$ | ICL and CIWL: the start decides |
| $\lambda_{ciwl} < \lambda < \lambda_{max}$ | ICL alone: it persists |
| $\lambda > \lambda_{max}$ | neither |

The condition is $\mu_1 < 0.05\,\alpha$ at the paper's dimensions. Above that $\mu_1$ ICL has no fold of its own, and
there is no $\lambda_{icl}$: as the decay falls ICL passes into a mixture of both without a jump. At the paper's own
$\mu_1 = \alpha$ that mixture ends near $\lambda_{ciwl}$ and leaves CIWL (see [Limits](#limits)).

Nothing learned, all vectors zero, is stable for every $\lambda > 0$. All spectra are real: there are no cycles."""
    )
    isolated(page)
    learning(page)
    icl(page)
    ciwl(page)
    compare(page)
    page.section("Limits")
    page.text(
        r"""All three are asymptotic: see the figure for their errors. For $\delta$ above about 0.05 the fold of ICL is
        gone (`decay_thresholds` then gives NaN): with less decay ICL passes into a mixture of both, in which CIWL's
        share grows, without a jump. At small
        $\mu_1/\alpha$ there is, besides the folds above, a pair that bounds a stable mixture below $\lambda_{icl}$; it
        has no
        closed form here."""
    )
    page.text(paper())
    page.section("What is new and what is textbook")
    page.text(
        """Folds of equilibria are textbook, and transience by weight decay on attention is in Nguyen & Reddy
        (arXiv 2412.00104). New here: the thresholds for this loss, and the range of decay in which the start
        decides."""
    )
    return page


if __name__ == "__main__":
    build().write()
