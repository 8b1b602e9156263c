"""The plateau: what moves while nothing is learned, at which rates, and when it ends; growth rates with and without the
other mechanism, and the five numbers from which the time of emergence is predicted."""

from __future__ import annotations

import numpy as np
import sympy as sp
import xarray as xr
from page import ROOT, Page, assert_equal

import toymodel as tm
from toymodel import plotting
from toymodel.model import Form
from toymodel.presets import coopetition, long_pathway
from toymodel.reduction import cost_loss, mechanism_loss, reduced_loss, symbols, terms
from toymodel.theory.cooperation import GA, GD, K1, K2, B, growth_expressions
from toymodel.theory.plateau import coefficients, decay_expression, emergence_time

DATA = ROOT / "figures" / "data" / "theory_emergence.nc"


def slopes(form: Form) -> dict[sp.Symbol, sp.Expr]:
    """Minus the derivatives of the reduced loss in all coordinates, from `reduced_loss`."""
    planes, weights, parameters = symbols(form)
    loss = sp.sympify(reduced_loss(form, planes, weights, parameters))
    return {s: -sp.diff(loss, s) for x in form.vectors for s in planes[x][:2]}


def plateau_field(form: Form) -> dict[sp.Symbol, sp.Expr]:
    """u' = sum_m k_m prod u - g u, v' = - g v with the coefficients of the library as numbers of their own."""
    planes, _, _ = symbols(form)
    drive, damping = coefficients(form)
    field = {}
    for x in form.vectors:
        others = {t: [planes[y] for y in letters if y != x] for t, letters in form.terms.items() if x in letters}
        g = sp.Add(*(damping[t] * sp.prod(p.u**2 + p.v**2 for p in ps) for t, ps in others.items()))
        push = sp.Add(*(drive[t] * sp.prod(p.u for p in ps) for t, ps in others.items() if t in form.mechanisms))
        field[planes[x].u] = push - g * planes[x].u
        field[planes[x].v] = -g * planes[x].v
    return field


def with_frozen_slopes(form: Form) -> dict[sp.Symbol, sp.Expr]:
    """Minus the derivatives of the loss in all coordinates, its slope in each term being that at the origin."""
    planes, weights, _ = symbols(form)
    values = terms(form, planes, weights)
    names = {t: sp.Symbol(t, nonnegative=True) for t in form.terms}
    origin = {s: 0 for x in form.vectors for s in planes[x][:2]}
    unlearned = {names[t]: value.subs(origin) for t, value in values.items()}
    slope = {t: sp.diff(form.expression, name).subs(unlearned) for t, name in names.items()}
    return {s: -sum(slope[t] * sp.diff(value, s) for t, value in values.items()) for s in origin}


def constant_coefficients(page: Page) -> None:
    """The field of the plateau is the exact one but for the slopes of the loss, which differ by higher orders."""
    page.section("Constant coefficients")
    page.text(
        r"""The slope of $L$ in a term $t$ is a function of the losses. On the plateau these are $e_m = \frac{w_m}2
        \prod|x^*|^2$, so $e_t = \partial L/\partial L_t$ is a number there, and $-\partial L/\partial u_x$ is a sum of
        products with constant coefficients:"""
    )
    page.equation(
        r"\dot u_x", r"\sum_{m\ni x} k_m\!\!\prod_{y\in m,\,y\ne x}\!\! u_y - g_x u_x,\qquad \dot v_x = -g_xv_x"
    )
    page.equation(
        r"g_x", r"\sum_{t\ni x} h_t\!\prod_{y\in t,\,y\ne x}\!|y|^2,\qquad k_m = e_m w_m\prod|x^*|,\quad h_t = e_t w_t"
    )
    for model, order in ((coopetition(), 5), (long_pathway(), 5)):
        form, small = model.form, sp.Symbol("epsilon")
        exact, plateau, frozen = slopes(form), plateau_field(form), with_frozen_slopes(form)
        scaled = {s: small * s for s in exact}
        for s, value in exact.items():
            assert_equal(plateau[s], frozen[s], f"the field in {s}")
            difference = sp.expand((value - plateau[s]).subs(scaled, simultaneous=True))
            lowest = min(power for (power,), _ in sp.Poly(difference, small).terms())
            assert lowest >= order, (s, lowest)
        drive, _ = coefficients(form)
        names = {w: sp.Symbol(w.name) for w in symbols(form)[1].values()}
        page.claim(
            rf"""for `L = {form.expression}` with terms {
                ", ".join(f"{t} = {x}" for t, x in form.terms.items())
            } the field is exactly this one if $e_t$ is the slope, drives and dampings, and with the slopes themselves
            up to terms of order {order} in the coordinates ($k_{{icl}} = {sp.latex(drive["icl"].subs(names))}$)""",
            True,
        )


def growth(page: Page) -> None:
    """The linear system around one large shared overlap."""
    page.section("Growth rates")
    page.text(
        r"""Let one shared overlap be $B$ and the other coordinates small. The terms that are linear in these couple
        $a$, $d$ and the other shared overlap. Keep also the damping of $a$ and $d$ by the cost, at rates $g_a$, $g_d$
        (from the residuals: $g_a = \alpha w_c|d|^2$)."""
    )
    form = coopetition().form
    planes, _, _ = symbols(form)
    drive, _ = coefficients(form)
    field = plateau_field(form)
    kept = [planes[x].u for x in "adc"]
    rest = {planes[x].v: 0 for x in "abcd"} | {planes["b"].u: B}
    jacobian = sp.Matrix(3, 3, lambda i, j: sp.diff(field[kept[i]].subs(rest), kept[j]).subs(dict.fromkeys(kept, 0)))
    matrix = sp.Matrix([[0, 0, K1 * B], [0, 0, K2 * B], [K1 * B, K2 * B, 0]])
    named = jacobian.subs(planes["b"].u, B) - matrix.subs({K1: drive["icl"], K2: drive["ciwl"]})
    page.claim("the Jacobian of the plateau is the matrix $M$ below, without $g$", sp.simplify(named) == sp.zeros(3))
    page.equation("M", matrix - sp.diag(GA, GD, 0))
    rate, factor = sp.symbols("lambda epsilon", positive=True)
    formulas = growth_expressions()
    polynomial = (rate * sp.eye(3) - matrix).det()
    page.check(
        r"its eigenvalues are $0, \pm B\sqrt{k_1^2+k_2^2}$",
        polynomial,
        rate * (rate**2 - formulas["together"] ** 2),
    )
    page.check(
        r"without $d$: $\pm Bk_1$",
        (rate * sp.eye(2) - matrix.extract([0, 2], [0, 2])).det(),
        rate**2 - formulas["alone"] ** 2,
    )
    damped = (rate * sp.eye(3) - matrix + factor * sp.diag(GA, GD, 0)).det()
    net = formulas["together"] - factor * (formulas["together"] - formulas["net"])
    first = sp.diff(damped.subs(rate, net), factor).subs(factor, 0)
    page.check("the cost takes $(g_ak_1^2 + g_dk_2^2) / (2K^2)$ from it, to first order", 1 + first, sp.Integer(1))
    page.text(
        r"""The growing direction is $(a, d, c) \propto (k_1, k_2, K)$ with $K^2 = k_1^2 + k_2^2$. Whatever the start,
        what grows has this mixture, so $a$ and $d$ grow in a fixed ratio. How strongly they help each
        other is $k_2/k_1$, which depends on the private targets and on the losses alone:"""
    )
    ratio = drive["ciwl"] / drive["icl"]
    target = {x: planes[x].target for x in "abcd"}
    losses = {m: coefficients_of_loss(form, m) for m in ("icl", "ciwl")}
    mu_icl, mu_ciwl = (sp.Symbol(f"mu_{m}", nonnegative=True) for m in ("icl", "ciwl"))
    page.equation(r"\frac{k_2}{k_1}", r"\frac{|a^*|}{|d^*|}\;\frac{1+\mu_{icl}/e_{icl}}{1+\mu_{ciwl}/e_{ciwl}}")
    page.check(
        "this ratio (no dimension enters except through the targets)",
        ratio,
        target["a"] / target["d"] * (1 + mu_icl / losses["icl"]) / (1 + mu_ciwl / losses["ciwl"]),
    )
    paper = coopetition()
    rates = tm.theory.growth(paper, tm.aligned_start(paper))
    times = float(rates["cooperation"])
    page.text(
        f"""With the paper's dimensions and typical targets it is {np.sqrt(times**2 - 1):.2f}: the rate is {times:.2f}
        times that of ICL alone. Cooperation is weak there because the target of d is long."""
    )


def coefficients_of_loss(form: Form, mechanism: str) -> sp.Expr:
    """e_m of a mechanism: its loss with all coordinates at zero."""
    planes, weights, _ = symbols(form)
    zero = {s: 0 for x in form.vectors for s in planes[x][:2]}
    return mechanism_loss([planes[x] for x in form.mechanisms[mechanism]], weights[mechanism]).subs(zero)


def decays(page: Page) -> None:
    """Pairs of squared norms under one product."""
    page.section("The decay of the residuals")
    page.text(
        r"""A start with large residuals first loses norm. A product of two vectors $x, y$ under a constant coefficient
        $h$ has $\frac{d}{dt}|x|^2 = \frac{d}{dt}|y|^2 = -2h|x|^2|y|^2$: the difference $\delta$ stays, and the smaller
        square $r$ obeys $\dot r = -2hr(r+\delta)$,"""
    )
    expression = decay_expression()
    r0, delta, h, t = sp.symbols("r0 delta h t", positive=True)
    page.equation("r(t)", expression)
    page.check("solves it", sp.diff(expression, t), -2 * h * expression * (expression + delta))
    page.check("starts at $r_0$", expression.subs(t, 0), r0)
    page.check(
        r"for equal norms it tends to $r_0/(1+2hr_0t)$",
        1 / sp.limit(1 / expression, delta, 0),
        r0 / (1 + 2 * h * r0 * t),
    )
    page.claim("and, for $\\delta > 0$, to 0", sp.limit(expression.subs({r0: 2, delta: 3, h: 1}), t, sp.oo) == 0)
    form = coopetition().form
    planes, weights, parameters = symbols(form)
    a, d = planes["a"], planes["d"]
    cost = parameters["alpha"] * cost_loss([a, d], weights["cost"])
    lost = -2 * (a.u * sp.diff(cost, a.u) + a.v * sp.diff(cost, a.v))
    _, damping = coefficients(form)
    page.check(
        r"the cost does this to $a$ and $d$, with $h = \alpha w_c$",
        lost,
        -2 * damping["cost"] * (a.u**2 + a.v**2) * (d.u**2 + d.v**2),
    )
    field = plateau_field(form)
    b, c = planes["b"], planes["c"]
    undriven = {p.u: 0 for p in (a, d)}
    shrink = [2 * (p.u * field[p.u] + p.v * field[p.v]).subs(undriven) for p in (b, c)]
    strength = damping["icl"] * a.v**2 + damping["ciwl"] * d.v**2
    for value in shrink:
        assert_equal(value, -2 * strength * (b.u**2 + b.v**2) * (c.u**2 + c.v**2), "b and c")
    page.claim(r"the mechanisms do it to $b$ and $c$, with $h = h_{icl}|a|^2 + h_{ciwl}|d|^2$", True)
    start = sp.Symbol("R", positive=True)
    integral = (r0 - expression) / (2 * h)
    page.check(
        r"what $|a|^2$ and $|d|^2$ lose while $b$ and $c$ decay is a factor $\exp(-2h_mI)$, "
        r"$I = \int_0^t r(r+\delta) = (r_0-r(t))/2h$",
        start * sp.diff(integral, t),
        start * expression * (expression + delta),
    )


def predictor(page: Page) -> None:
    page.section("The time of emergence from the start")
    page.text(
        r"""`emergence_time` puts the pieces together: the four overlaps and the residuals of $b$ and $c$ (one of which
        the conserved $|b|^2-|c|^2$ gives: five numbers) are integrated, the residuals of $a$ and $d$ and the early
        collapse of $b$ and $c$ are the closed decays above (assumption 4). It stops where $L_{icl}$ is half of
        $e_{icl}$. There the plateau is left, and the last steps are wrong; but most of the time has passed in the slow
        beginning."""
    )
    form = coopetition().form
    planes, _, _ = symbols(form)
    field = plateau_field(form)
    b, c = planes["b"], planes["c"]
    squares = [b.u * field[b.u] + b.v * field[b.v], c.u * field[c.u] + c.v * field[c.v]]
    page.check(
        r"$|b|^2 - |c|^2$ is conserved on the plateau as it is in the full model",
        1 + squares[0] - squares[1],
        sp.Integer(1),
    )


def closed_or_not(page: Page) -> None:
    """What the quadrature gives on the same runs."""
    found = xr.load_dataset(page.uses(DATA), engine="h5netcdf")
    rows = ["| starts | predictor | emerge | scored | R² of log time | median error | in vain |", "|---" * 7 + "|"]
    for scaled, starts in ((False, "standard normal"), (True, "scaled by 0.1..1")):
        runs = found.sel(scaled=scaled)
        for name, what in (("predicted", "`emergence_time`"), ("quadrature", "`escape`, no damping")):
            both = (runs.measured.notnull() & runs[name].notnull()).values
            square, error = accuracy(runs.measured.values[both], runs[name].values[both])
            came, vain = int(runs.measured.notnull().sum()), int((runs.measured.isnull() & runs[name].notnull()).sum())
            row = (starts, what, f"{came:,}", f"{both.sum():,}", f"{square:.3f}", f"{error:.1%}")
            rows.append("| " + " | ".join((*row, f"{vain} of {runs.measured.size - came}")) + " |")
    standard = found.sel(scaled=False)
    page.text(
        r"""**No closed form.** Without damping the plateau is integrable, and the time is a one-dimensional integral
        ([cooperation](cooperation.md), `toymodel.escape`). Where residuals damp it is not enough. On the runs of
        `benchmarks/theory_emergence.py` (alpha, mu_icl, the entries of $d$ and starts drawn at random):"""
    )
    page.lines("\n".join(rows))
    page.text(
        f"""The reason: the quadrature needs a damping (the fastest rate at the start, times the time) below 0.1, and of
        the {standard.measured.size:,} standard normal starts {int((standard.damping < 0.1).sum())} are in that range;
        the median is {float(standard.damping.median()):.0f}. A vector of $n$ normal entries has a residual of about
        $\\sqrt{{n-1}}$ beside an overlap of 1. The residuals of $b$ and $c$ and of $a$ and $d$ collapse first, at rates
        that depend on one another, and take the overlaps down by a factor that depends on how the collapse and the
        first growth overlap in time; the conserved quantities that make the undamped plateau integrable are lost. What
        predicts the time is therefore an integration: five numbers on the plateau."""
    )


def accuracy(measured: np.ndarray, predicted: np.ndarray) -> tuple[float, float]:
    """R^2 of log time, and the median relative error."""
    x, y = np.log(measured), np.log(predicted)
    return float(1 - np.sum((x - y) ** 2) / np.sum((x - x.mean()) ** 2)), float(np.median(np.abs(np.exp(y - x) - 1)))


def beside_b(entries: int, held: bool = False) -> tuple[tm.Model, xr.Dataset, xr.Dataset]:
    """The published model with so many entries of d, a start next to b = 0.5, and its growth rates."""
    model = coopetition(alpha=0.0, dims=(20, 20, 20, entries))
    start = tm.aligned_start(model, overlap={"a": 1e-4, "b": 0.5, "c": 1e-4, "d": 0.0 if held else 1e-4})
    return model, start, tm.theory.growth(model, start)


def measured_rates(axes) -> float:
    """Growth rates from runs that start next to b = B, against the formula; the largest relative error."""
    worst = 0.0
    for held, name, colour in ((False, "together", "shared"), (True, "alone", "icl")):
        for entries in (5, 10, 20, 40, 80, 160):
            model, start, found = beside_b(entries, held)
            times = np.linspace(4, 6, 20) / float(found[name])
            acts = [tm.Clamp("d", overlap=0, residual=0)] if held else []
            run = tm.flow(model, start, times[-1], times=times, method="LSODA", interventions=acts)
            c = run.overlap.sel(vector="c").isel(time=run.time.values >= times[0])
            rate = float(np.polyfit(c.time, np.log(c), 1)[0])
            worst = max(worst, abs(rate / float(found[name]) - 1))
            axes.plot(entries, rate, "o", ms=4, color=plotting.COLOURS[colour])
    sizes = np.arange(5, 161, 5)
    formulas = [beside_b(int(n))[2] for n in sizes]
    for name, colour, text in (("together", "shared", r"$B\sqrt{k_1^2+k_2^2}$"), ("alone", "icl", r"$Bk_1$")):
        line = [float(found[name]) for found in formulas]
        axes.plot(sizes, line, color=plotting.COLOURS[colour], label=text)
    axes.set(xlabel="entries of d", ylabel="growth rate of c", xscale="log", ylim=(0, None))
    return worst


def simulations(page: Page) -> None:
    page.section("What it predicts")
    figure, axes = plotting.new(1, 3, 7.2, 2.5)
    worst = measured_rates(axes[0])
    assert worst < 0.02, worst
    axes[0].legend()
    draw, seeds = np.random.default_rng(5), range(500)
    labelled = {"dims": "seed", "coords": {"seed": list(seeds)}}
    alpha = xr.DataArray(10 ** draw.uniform(-3, np.log10(0.3), 500), **labelled)
    mu = xr.DataArray(10 ** draw.uniform(-3, 0, 500), **labelled)
    model = coopetition()
    texts = []
    for panel, scale, name in ((axes[1], 1.0, "standard normal starts"), (axes[2], 0.2, "starts of 0.2")):
        start = tm.random_start(model, seeds, scale=scale)
        runs = tm.descend(model, start, 30_000, every=10, alpha=alpha, mu_icl=mu)
        time = tm.measure(runs).emergence.sel(mechanism="icl", drop=True)
        predicted = emergence_time(model, start, horizon=30_000, alpha=alpha, mu_icl=mu)
        both = (time.notnull() & predicted.notnull()).values
        x, y = time.values[both], predicted.values[both]
        square, error = accuracy(x, y)
        assert square > 0.95 and error < 0.1
        panel.axline((1e3, 1e3), slope=1, color=plotting.COLOURS["loss"], lw=0.7, ls=":")
        panel.plot(y, x, ".", ms=3, color=plotting.COLOURS["icl"])
        panel.set(xscale="log", yscale="log", xlabel="predicted time", ylabel="measured", title=name)
        texts.append(f"{name}: {both.sum()} runs, R² of log time {square:.4f}, median error {error:.1%}")
    plotting.panel_letters(axes)
    page.figure(
        figure,
        f"""(a) Growth rate of c in the full model (points, $b$ at 0.5, the rest near 0) against the formulas, within
        {worst:.1%}. (b, c) Time of emergence of ICL in the published model, alpha log-uniform in 0.001..0.3, mu_icl in
        0.001..1, predicted from the start and measured. {"; ".join(texts)}. `benchmarks/theory_emergence.py` also
        varies the entries of d.""",
    )


def build() -> Page:
    page = Page(
        __file__,
        "The plateau and the escape from it",
        [
            "The exact reduction, gradient flow.",
            "On the plateau the losses are those of mechanisms that have learned nothing: products of overlaps and of "
            "residuals are small against the products of the targets.",
            "For growth rates: one shared overlap is much larger than the other coordinates.",
            "For the predictor: the residuals of $a$ and $d$ decay as the cost alone, and the first collapse of $b$ "
            "and $c$, would have it, the two effects multiplied; ICL is not preceded by CIWL.",
        ],
    )
    page.section("Statement")
    page.text(
        r"""While nothing is learned the model moves with constant coefficients: one drive $k_m$ for each mechanism and
        one damping $h_t$ for each term. With one shared overlap at $B$ the rest grows at the rate
        $B\sqrt{k_1^2+k_2^2}$, with CIWL blocked at $Bk_1$. When ICL emerges is predicted by integrating five of
        the model's eight numbers in a background that is known in closed form, for small starts and for random starts
        with large residuals; without damping one integral is enough, with it there is no closed form."""
    )
    constant_coefficients(page)
    growth(page)
    decays(page)
    predictor(page)
    closed_or_not(page)
    simulations(page)
    page.section("Limits of validity")
    page.text(
        """The predictor is blind to what is learned first: where CIWL comes before ICL it predicts an emergence that
        does not happen, or comes later (*in vain* above: about half of the runs in which ICL does not emerge). The
        closed background assumes that the cost and the collapse act one by one. Step sizes at which descent leaves the
        flow are outside."""
    )
    return page


if __name__ == "__main__":
    build().write()
