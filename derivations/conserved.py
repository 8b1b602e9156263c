"""Conserved and balanced combinations of squared norms: from the symmetry of the terms, for any model; what they say
of starts, ends, families of equilibria; and what discrete steps, weight decay and noise make of them."""

from __future__ import annotations

from collections import Counter

import numpy as np
import sympy as sp
from page import Page, assert_equal

import toymodel as tm
from toymodel import plotting
from toymodel.model import Balance, Form, Model
from toymodel.presets import coopetition, induction, long_pathway
from toymodel.reduction import cost_loss, mechanism_loss, reduced_loss, symbols
from toymodel.theory.conserved import (
    balance_values,
    end_norms,
    end_norms_equation,
    end_sharpness,
    end_sharpness_expression,
    label,
)


def generator(form: Form, powers: dict[str, int], expression: sp.Expr) -> sp.Expr:
    """The derivative of an expression under x -> exp(k_x s) x at s = 0."""
    planes, _, _ = symbols(form)
    return sp.Add(*(k * s * sp.diff(expression, s) for x, k in powers.items() for s in planes[x][:2]))


def zoo() -> list[Model]:
    """The presets, and a model with a vector twice, a cost of three and a quotient."""
    strange = Model(
        mechanisms={"one": "abc", "two": "dbc", "three": "ecc"},
        costs={"clash": "ade", "decay": "b"},
        loss=lambda one, two, three, clash, decay, *, mu=0.1: one * two / (1 + three) + clash**2 + mu * decay,
        dims=dict.fromkeys("abcde", 3),
    )
    return [induction(), coopetition(), long_pathway(), strange]


def symmetry(page: Page) -> None:
    """Scaling leaves mechanisms as they are, and multiplies costs."""
    page.section("The symmetry")
    page.text(
        r"""Rescale the vectors, $x \to e^{k_x s}x$. Let $n_{tx}$ count how often the term $t$ holds $x$. The tensor
        that a
        mechanism makes is multiplied by $e^{s\sum_x n_{mx}k_x}$, so it does not change if $\sum_x n_{mx}k_x = 0$; a
        cost
        is multiplied by $e^{2s\sum_x n_{cx}k_x}$. At $s = 0$ this reads"""
    )
    page.equation(r"\sum_x k_x\,x\cdot\nabla_x L_m = 0,\qquad \sum_x k_x\,x\cdot\nabla_x C_c", r"2C_c\sum_x n_{cx}k_x")
    page.text(r"Gradient flow has $\frac{d}{dt}|x|^2 = -2x\cdot\nabla_x L$, hence")
    page.equation(
        r"\frac{d}{dt}\sum_x k_x|x|^2",
        r"-4\sum_c\Big(\sum_x n_{cx}k_x\Big)\frac{\partial L}{\partial C_c}\,C_c",
    )
    page.text(
        r"""*conserved* where the sum on the right is empty, *balanced* where costs drive it. The loss may be any
        function of
        the terms. There are as many independent combinations as vectors, less the rank of $(n_{mx})$."""
    )
    for model in zoo():
        form = model.form
        planes, weights, _ = symbols(form)
        balances = model.conserved()
        rank = sp.Matrix([[Counter(xs)[x] for x in form.vectors] for xs in form.mechanisms.values()]).rank()
        page.claim(
            rf"$L = {sp.latex(form.expression)}$ with {', '.join(form.mechanisms.values())} has "
            f"{len(form.vectors)} - {rank} combinations",
            len(balances) == len(form.vectors) - rank,
        )
        for balance in balances:
            powers = dict(balance.coefficients)
            for m, letters in form.mechanisms.items():
                loss = mechanism_loss([planes[x] for x in letters], weights[m])
                assert_equal(1 + generator(form, powers, loss), 1, f"{label(balance)} and {m}")
            for c, letters in form.costs.items():
                loss = cost_loss([planes[x] for x in letters], weights[c])
                assert_equal(
                    generator(form, powers, loss) + loss,
                    (1 + 2 * sum(powers.get(x, 0) for x in letters)) * loss,
                    f"{label(balance)} and {c}",
                )
            assert_equal(1 + rate(form, powers), 1 + written_out(form, balance), label(balance))
        page.claim("; ".join(f"${latex(b)}$" for b in balances) or "nothing is conserved", True)


def rate(form: Form, powers: dict[str, int]) -> sp.Expr:
    """d/dt sum k_x |x|^2 under the flow of the reduced loss."""
    return -2 * generator(form, powers, sp.sympify(reduced_loss(form, *symbols(form))))


def written_out(form: Form, balance: Balance) -> sp.Expr:
    """The rate that `Model.conserved` gives, with its terms in coordinates."""
    planes, weights, parameters = symbols(form)
    values = {
        sp.Symbol(t, nonnegative=True): (mechanism_loss if t in form.mechanisms else cost_loss)(
            [planes[x] for x in letters], weights[t]
        )
        for t, letters in form.terms.items()
    }
    return balance.rate.subs(values | {sp.Symbol(p, nonnegative=True): s for p, s in parameters.items()})


def latex(balance: Balance) -> str:
    return rf"\frac{{d}}{{dt}}({label(balance)}) = {sp.latex(balance.rate)}"


def families(page: Page) -> None:
    """Equilibria come in families, and the Hessian has the null vector k x."""
    page.section("Families of equilibria")
    page.text(
        r"""If $\sum_x k_x|x|^2$ is conserved, $L$ is constant along $x \to e^{k_xs}x$, which carries an equilibrium to
        others:
        they form a line for each conserved combination. The derivative of $\sum_x k_x\,x\cdot\nabla_xL = 0$ is $H(kx) +
        k\nabla L = 0$, so at an equilibrium the Hessian has the null vector $(k_x x)$. These zero eigenvalues are no
        bifurcations: fix the values of the invariants, or add weight decay, before following a branch
        (`toymodel.theory.equilibria`)."""
    )
    form = coopetition().form
    planes, weights, parameters = symbols(form)
    loss = sp.sympify(reduced_loss(form, planes, weights, parameters))
    coordinates = [s for x in form.vectors for s in planes[x][:2]]
    power = {"b": 1, "c": -1}
    direction = [power.get(x, 0) * s for x in form.vectors for s in planes[x][:2]]
    powers = [power.get(x, 0) for x in form.vectors for _ in range(2)]
    for s, k in zip(coordinates, powers, strict=True):
        row = sp.Add(*(sp.diff(loss, s, other) * d for other, d in zip(coordinates, direction, strict=True)))
        assert_equal(1 + row + k * sp.diff(loss, s), 1, f"null vector, {s}")
    page.claim(r"$H(kx) + k\nabla L = 0$ for $|b|^2-|c|^2$ of the published model, in all eight coordinates", True)


def starts(page: Page) -> None:
    """Balanced starts; lower bounds; where one mechanism ends."""
    page.section("What they mean for starts")
    form = coopetition().form
    planes, weights, parameters = symbols(form)
    loss = sp.sympify(reduced_loss(form, planes, weights, parameters))
    b, c = planes["b"], planes["c"]
    equal = {c.u: b.u, c.v: b.v}
    for one, other in zip(b[:2], c[:2], strict=True):
        assert_equal(sp.diff(loss, one).subs(equal), sp.diff(loss, other).subs(equal), "b = c")
    page.text(
        r"""*Balanced starts.* The loss does not change when $b$ and $c$ are exchanged (targets enter through their
        product
        only), so $u_b = u_c$, $v_b = v_c$ is invariant, and eight numbers become six. The conserved difference measures
        how
        far from it a start is; $|b|^2 \ge \Delta = |b|^2-|c|^2$ at all times, so an unbalanced start cannot come near
        the
        origin, where all rates vanish: it escapes a plateau at a rate of about $\sqrt\Delta$, a balanced one at a rate
        that
        is as small as its vectors."""
    )
    page.claim("the slopes in $u_b$ and $u_c$, $v_b$ and $v_c$ agree where $b = c$", True)
    page.text(
        r"""*Where one mechanism ends.* Alone, a mechanism of $n$ vectors keeps $n-1$ differences of squares, and where
        it is
        learned, residuals are zero and $\prod u = S$. So the end is known from the start, without simulation: the
        square
        $\rho$ of the shortest vector is the one positive root of"""
    )
    page.equation(r"\rho\prod_i(\rho + D_i) - S^2", sp.Integer(0))
    rho, product = sp.symbols("rho S", positive=True)
    cubic = end_norms_equation(3)
    slope = sp.Poly(sp.expand(sp.diff(cubic, rho)), rho, *sp.symbols("D1:3", nonnegative=True))
    page.claim(
        r"it grows with $\rho$ (all coefficients of its derivative are positive), so there is one root",
        all(k > 0 for k in slope.coeffs()) and cubic.subs(rho, 0) == -(product**2),
    )
    sharpness(page)


def sharpness(page: Page) -> None:
    form = induction().form
    planes, weights, parameters = symbols(form)
    loss = sp.sympify(reduced_loss(form, planes, weights, parameters))
    us, vs = [planes[x].u for x in "abc"], [planes[x].v for x in "abc"]
    target = planes["a"].target * planes["b"].target * planes["c"].target
    end = {v: 0 for v in vs} | {us[2]: target / (us[0] * us[1])}
    hessian = sp.Matrix(3, 3, lambda i, j: sp.diff(loss, us[i], us[j]).subs(end))
    found = end_sharpness_expression("abc").subs(
        {sp.Symbol(f"u_{x}", positive=True): u for x, u in zip("abc", us, strict=True)}
        | {sp.Symbol("S", positive=True): target, sp.Symbol("w", positive=True): weights["icl"]}
    )
    found = found.subs(end)
    page.text(
        r"""*How sharp that end is.* The Hessian there has one eigenvalue other than zero among the overlaps,
        $wS^2\sum_x 1/|x|^2$, which is least for equal norms: a balanced start tolerates the largest step (below 2
        divided
        by it, and by the eigenvalues across the plane, $wS^2/|x|^2$, which are smaller)."""
    )
    page.check("its trace is that", hessian.trace(), found)
    for i in range(3):
        for j in range(i):
            minor = hessian[i, i] * hessian[j, j] - hessian[i, j] * hessian[j, i]
            assert_equal(1 + minor, 1, "a minor of the Hessian")
    page.claim("its minors of order two are zero: one eigenvalue only", True)


def other_dynamics(page: Page) -> None:
    """Steps, weight decay, noise."""
    page.section("Discrete steps, weight decay, noise")
    form = coopetition().form
    planes, weights, parameters = symbols(form)
    loss = sp.sympify(reduced_loss(form, planes, weights, parameters))
    eta, rate_ = sp.symbols("eta lambda", positive=True)
    powers = {"b": 1, "c": -1}

    def change(loss: sp.Expr) -> sp.Expr:
        return sp.Add(
            *(k * ((s - eta * sp.diff(loss, s)) ** 2 - s**2) for x, k in powers.items() for s in planes[x][:2])
        )

    squares = sp.Add(*(k * sp.diff(loss, s) ** 2 for x, k in powers.items() for s in planes[x][:2]))
    page.text(
        r"""*A step of descent* changes $\sum k_x|x|^2$ by the flow's rate times $\eta$, and by exactly $\eta^2\sum_x
        k_x|\nabla_xL|^2$ more. A conserved combination drifts by second order in $\eta$ at each step, by first order
        over a
        given time; and only while the loss falls, since $\eta\sum_t|\nabla L|^2$ is about the loss that was lost."""
    )
    page.check(r"the change of $|b|^2 - |c|^2$ at one step", 1 + change(loss), 1 + eta**2 * squares)
    value = sp.Add(*(k * s**2 for x, k in powers.items() for s in planes[x][:2]))
    decayed = loss + rate_ / 2 * sp.Add(*(s**2 for x in form.vectors for s in planes[x][:2]))
    flow = -2 * sp.Add(*(k * s * sp.diff(decayed, s) for x, k in powers.items() for s in planes[x][:2]))
    page.text(
        r"""*Weight decay* $\frac\lambda2\sum|x|^2$ adds $-2\lambda\sum k_x|x|^2$ to the rate: a difference is forgotten
        as
        $e^{-2\lambda t}$, and the fixed points with weight decay are balanced, $|b| = |c|$."""
    )
    page.check(r"$\frac{d}{dt}(|b|^2-|c|^2) = -2\lambda(|b|^2-|c|^2)$", flow, -2 * rate_ * value)
    page.text(
        r"""*Gradient noise* of $s$ a unit of time ([extended reduction](reduction_extended.md)) adds $s^2\sum_xk_xn_x$
        to the
        mean rate, with $n_x$ the numbers of entries: with $n_b = n_c$ the mean of $|b|^2-|c|^2$ stays, and its variance
        grows."""
    )


def simulations(page: Page) -> None:
    page.section("What it predicts")
    figure, axes = plotting.new(1, 3, 7.2, 2.5)
    model = induction()
    starts = tm.random_start(model, range(200), scale=0.7)
    squares = (starts.overlap**2 + starts.residual**2).values
    product = starts.target_norm.prod("vector").values
    ends = tm.descend(model, starts, 30_000, lr=0.2, every=30_000).isel(time=-1)
    learned = (ends.loss < 1e-8).values
    predicted, measured = end_norms(squares, product)[learned], ends.overlap.values[learned]
    error = float(np.abs(np.abs(measured) / predicted - 1).max())
    assert learned.mean() > 0.9 and error < 0.02
    for i, x in enumerate("abc"):
        axes[0].plot(predicted[:, i], np.abs(measured[:, i]), "o", ms=2, color=plotting.VECTORS[x], label=x)
    axes[0].axline((3, 3), slope=1, color=plotting.COLOURS["loss"], lw=0.7, ls=":")
    axes[0].set(xlabel="norm at the end, predicted", ylabel="measured")
    slope = drift(axes[1])
    forgotten = decay(axes[2])
    norms = np.array([[10.0, 10.0, 10.0], [20.0, 10.0, 5.0]])
    even, uneven = end_sharpness(norms, norms.prod(-1), model.weights["icl"])
    for ax in axes:
        ax.legend()
    plotting.panel_letters(axes)
    page.figure(
        figure,
        f"""(a) The induction model from {learned.sum()} random starts of 200 that it learns from in the time given:
        norms at the
        end, from `end_norms` and from descent with step 0.2, within {error:.1%}. (b) The published model, seed 7:
        largest
        drift of $|b|^2-|c|^2$ and of $|a|^2+|d|^2-|b|^2+8\\alpha\\int C\\,dt$ until time 2,000 against the step, slope
        {slope:.2f}. (c) With weight decay of 0.001 the difference is forgotten as $e^{{-2\\lambda t}}$ (line), within
        {forgotten:.0e} relative. (Norms 20, 10, 5 are {uneven / even:.2f} times as sharp an end as 10, 10, 10.)""",
    )


def drift(ax) -> float:
    """The drift of both combinations against the step size; the slope in log-log of the first."""
    model = coopetition()
    start, lrs, found = tm.paper_start(model, 7), np.array([1, 2, 4, 8, 16]), []
    for k in lrs.tolist():
        runs = tm.descend(model, start, 2_000 * k, lr=1 / k, every=1)
        values = balance_values(model, runs)
        cost = 0.5 * (runs.cost[1:].values + runs.cost[:-1].values) / k
        made = np.concatenate([[0], np.cumsum(cost)]) * 8 * model.parameters["alpha"]
        found.append([float(abs(values[:, i] + made * i - values[0, i]).max()) for i in range(2)])
    drifts = np.array(found)
    for i, (name, colour) in enumerate((("|b|² - |c|²", "shared"), ("|a|² + |d|² - |b|²", "icl"))):
        ax.plot(1 / lrs, drifts[:, i], "o-", ms=3.5, color=plotting.COLOURS[colour], label=name)
    ax.set(xscale="log", yscale="log", xlabel="step size", ylabel="drift until t = 2,000")
    slope = float(np.polyfit(-np.log(lrs[1:]), np.log(drifts[1:, 0]), 1)[0])
    assert abs(slope - 1) < 0.1
    return slope


def decay(ax) -> float:
    model, rate_ = coopetition(), 1e-3
    runs = tm.descend(model, tm.paper_start(model, 7), 20_000, lr=0.1, weight_decay=rate_, every=200)
    values = balance_values(model, runs)[:, 0]
    line = float(values[0]) * np.exp(-2 * rate_ * runs.time)
    ax.plot(runs.time, values, "o", ms=2.5, color=plotting.COLOURS["shared"], label="|b|² - |c|²")
    ax.plot(runs.time, line, color=plotting.COLOURS["loss"])
    ax.set(xlabel="time (steps x step size)", ylabel="difference of squares")
    worst = float(abs(values / line - 1).max())
    assert worst < 0.1
    return worst


def build() -> Page:
    page = Page(
        __file__,
        "Conserved and balanced quantities",
        [
            "The loss is any differentiable function of mechanisms (rank-one targets) and costs (products).",
            "Gradient flow, unless a section says otherwise. No vector is clamped.",
        ],
    )
    page.section("Statement")
    page.text(
        r"""Mechanisms do not see how norms are shared out among their vectors. Each way to share them out differently
        gives a combination $\sum_xk_x|x|^2$ that only costs can change; `Model.conserved` lists them for any model. In
        the published model $|b|^2-|c|^2$ never changes and $|a|^2+|d|^2-|b|^2$ falls at the rate $8\alpha C$, the clock
        of
        the lifetime of ICL."""
    )
    symmetry(page)
    families(page)
    starts(page)
    other_dynamics(page)
    simulations(page)
    page.section("Limits")
    page.text(
        """A clamped or frozen vector, a blocked gradient and rules that act on single entries break the symmetry. With
        momentum the combinations are not conserved while the velocity is not small."""
    )
    page.section("What is new and what is textbook")
    page.text(
        """Balanced norms under gradient flow are those of Du et al. (2018, arXiv 1806.00900) and Arora et al. (2018,
        1802.06509). New here: how a cost makes them drift, in closed form, and what they fix of the end."""
    )
    return page


if __name__ == "__main__":
    build().write()
