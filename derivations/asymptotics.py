"""Which strategy is learned in the end: equilibria, families of them and their spectra, and growth without end."""

from __future__ import annotations

import numpy as np
import sympy as sp
import xarray as xr
from page import ROOT, Page

import toymodel as tm
from toymodel import plotting
from toymodel.presets import coopetition
from toymodel.reduction import mechanism_loss, symbols, terms
from toymodel.theory import asymptotics as theory
from toymodel.theory import compiled

DATA = ROOT / "figures" / "data" / "theory_asymptotics.nc"
FORM = coopetition().form
PLANES, WEIGHTS, PARAMETERS = symbols(FORM)
LOSS = compiled.loss(FORM)
ALPHA, MU1, MU2 = (PARAMETERS[name] for name in ("alpha", "mu_icl", "mu_ciwl"))
W1, W2, WC = (WEIGHTS[name] for name in ("icl", "ciwl", "cost"))
S1, S2 = (sp.Mul(*(PLANES[x].target for x in letters)) for letters in ("abc", "dbc"))
U, V = ({x: getattr(PLANES[x], part) for x in "abcd"} for part in "uv")
SQUARES = {x: U[x] ** 2 + V[x] ** 2 for x in "abcd"}
P, E1 = sp.symbols("p e1", positive=True)
SIGNS = {  # mu_icl, mu_ciwl and the end; None: what is learned first
    "mu_icl > 0 = mu_ciwl": (0.1, 0.0, "ciwl"),
    "mu_icl = 0 < mu_ciwl": (0.0, 0.1, "icl"),
    "mu_icl = mu_ciwl = 0": (0.0, 0.0, None),
    "mu_icl, mu_ciwl > 0": (0.1, 0.1, "icl+ciwl"),
}


def balance(page: Page) -> None:
    page.section("Nothing balances the cost")
    cost = terms(FORM, PLANES, WEIGHTS)["cost"]
    sides = {"a": 1, "d": 1, "b": -1}
    change = sp.Add(*(-2 * k * y[x] * sp.diff(LOSS, y[x]) for x, k in sides.items() for y in (U, V)))
    page.text(
        r"""Each mechanism holds one of $a$, $d$ and one $b$, so it does not change when $a$ and $d$ are stretched and
        $b$ is shrunk by the same factor; the cost does:"""
    )
    page.equation(r"\frac{d}{dt}\big(|a|^2 + |d|^2 - |b|^2\big)", r"-8\alpha C,\qquad C = \tfrac12 w_C|a|^2|d|^2")
    page.check("this, with all residuals", change, -8 * ALPHA * cost)
    page.check("$C$", cost, WC * SQUARES["a"] * SQUARES["d"] / 2)
    page.text(
        r"""**At an equilibrium $C = 0$: $a = 0$ or $d = 0$.** The two strategies cannot both be learned at rest,
        whatever the parameters."""
    )


def drives(page: Page) -> None:
    page.section("What has to vanish then")
    page.text(r"""Let $d = 0$. What moves $d$ is the slope in $u_d$ that the mechanism of CIWL has at zero:""")
    icl, ciwl = (mechanism_loss([PLANES[x] for x in letters], w) for letters, w in (("abc", W1), ("dbc", W2)))
    no_d, no_a = ({U[x]: 0, V[x]: 0} for x in "da")
    page.equation(
        r"-\frac{\partial L}{\partial u_d}\Big|_{d=0}",
        r"(L_{icl} + \mu_{icl})\,w_{ciwl}S_{ciwl}\,u_bu_c,\qquad S_{ciwl} = |d^*||b^*||c^*|",
    )
    page.check("this", -sp.diff(LOSS, U["d"]).subs(no_d), (icl + MU1) * W2 * S2 * U["b"] * U["c"])
    page.check(
        r"and for $a = 0$ the same with the names exchanged",
        -sp.diff(LOSS, U["a"]).subs(no_a),
        (ciwl + MU2) * W1 * S1 * U["b"] * U["c"],
    )
    page.text(
        r"""So an equilibrium with $d = 0$ has $L_{icl} = \mu_{icl} = 0$ (ICL is learned), one with $a = 0$ has
        $L_{ciwl} = \mu_{ciwl} = 0$ (CIWL is learned), or else $u_bu_c = 0$ (the plateau: nothing is learned). With a
        learned mechanism and the other $\mu$ positive what is left is a force on the one that is not:"""
    )
    for strategy, other in (("icl", "d"), ("ciwl", "a")):
        page.equation(rf"-\partial L/\partial u_{other}\;\text{{where only {strategy} is learned}}",
                      theory.forces()[strategy])  # fmt: skip
    for strategy, own, other, mu in (("icl", "a", "d", MU1), ("ciwl", "d", "a", MU2)):
        at = theory.learned(own, other)
        page.check(f"the force of {strategy}", -sp.diff(LOSS, U[other]).subs(at), theory.forces()[strategy])
        slopes = [sp.expand(sp.diff(LOSS, y[x]).subs(at).subs(mu, 0)) for x in "abcd" for y in (U, V)]
        page.claim(f"all eight slopes vanish there once its $\\mu$ is zero ({strategy})", not any(slopes))


def plateau(page: Page) -> None:
    page.section("The plateau holds nothing for ever")
    page.text(
        r"""Let $d = 0$, $u_bu_c = 0$ and ICL not learned. The slopes in $v_a$, $u_a$ and, where $|b||c| = 0$, those in
        $u_b$, $u_c$ leave only points at which one of $a, b, c$ is zero as a vector, say $x$, and another one, $y$, has
        no overlap. Give $y$ the overlap $\varepsilon$ and $x$ the overlap $\delta$, and keep $z$ (if it has no overlap
        either, give it a small one first, which costs nothing while $x = 0$). The loss of ICL changes by"""
    )
    y, z, step = sp.symbols("y z delta", positive=True)  # the lengths of y and z, and the overlap of x
    eps, u_z = sp.symbols("epsilon u_z", positive=True)
    moved = [PLANES[x]._replace(u=u, v=v) for x, u, v in
             (("a", step, 0), ("b", eps, sp.sqrt(y**2 - eps**2)), ("c", u_z, sp.sqrt(z**2 - u_z**2)))]  # fmt: skip
    change = mechanism_loss(moved, W1) - W1 * S1**2 / 2
    page.equation(r"\Delta L_{icl}", r"-w_{icl}S_{icl}\,\delta\varepsilon u_z + \tfrac12w_{icl}\delta^2|y|^2|z|^2")
    page.check("this", change, -W1 * S1 * step * eps * u_z + W1 * step**2 * y**2 * z**2 / 2)
    best = S1 * eps * u_z / (y * z) ** 2
    page.equation(r"\min_\delta\Delta L_{icl}", r"-\frac{w_{icl}S_{icl}^2\varepsilon^2u_z^2}{2|y|^2|z|^2}")
    page.check("the minimum", change.subs(step, best), -W1 * (S1 * eps * u_z / (y * z)) ** 2 / 2)
    page.text(
        r"""Nothing else of the loss changes, as $d = 0$: no point of the plateau is a local minimum, and by symmetry
        for $a = 0$. How long it takes to leave is the subject of [the plateau](plateau.md)."""
    )


def spectra(page: Page) -> None:
    page.section("Families of equilibria and their spectra")
    page.text(
        r"""For $\mu_{icl} = 0$ the points $d = 0$, $u_au_bu_c = S_{icl}$ without residuals are a surface of equilibria,
        with $u_b$ and $u_c$ as its coordinates. There $L_{icl}$ and its gradient vanish, so that the Hessian is
        $(L_{ciwl} + \mu_{ciwl})\,\nabla^2L_{icl} + \alpha\nabla^2C$, and $L_{ciwl}$ has its unlearned value
        $\ell_{ciwl} = \frac12w_{ciwl}S_{ciwl}^2$. With $\kappa = (\ell_{ciwl}+\mu_{ciwl})w_{icl}S_{icl}^2$ its
        eigenvalues, with the sign of the flow, are anywhere on the
        surface:"""
    )
    page.lines(
        r"""
| direction | eigenvalue of the flow |
|---|---|
| $(1/u_a, 1/u_b, 1/u_c)$: what is missing of the product | $-\kappa\,(u_a^{-2}+u_b^{-2}+u_c^{-2})$ |
| the residual of $x = a, b, c$ | $-\kappa\,u_x^{-2}$ |
| $d$, both coordinates | $-\alpha w_Cu_a^2$ |
| along the surface, twice | $0$ |
"""
    )
    at = theory.learned("a", "d") | {MU1: 0}
    place = {U["a"]: S1 / (U["b"] * U["c"])}
    ys = [U[x] for x in "abcd"] + [V[x] for x in "abcd"]
    rows = sp.hessian(LOSS, ys).subs(at).subs(place)
    own = {x: (place.get(U[x], U[x])) for x in "abc"}
    stiff = (W2 * S2**2 / 2 + MU2) * W1 * S1**2
    expected = sp.zeros(8, 8)
    for i, x in enumerate("abc"):
        for j, y in enumerate("abc"):
            expected[i, j] = stiff / (own[x] * own[y])
        expected[4 + i, 4 + i] = stiff / own[x] ** 2
    expected[3, 3] = expected[7, 7] = ALPHA * WC * own["a"] ** 2
    mixed = sp.symbols("q1:65", positive=True)
    page.check(
        "all 64 entries of the Hessian are those of the table (a product of the first direction with itself, and a "
        "diagonal)",
        sp.Add(*(q * entry for q, entry in zip(mixed, rows, strict=True))),
        sp.Add(*(q * entry for q, entry in zip(mixed, expected, strict=True))),
    )
    side = sp.Symbol("s", positive=True)
    variable = sp.Symbol("x", positive=True)
    for strategy, first, other in (("icl", "a", "d"), ("ciwl", "d", "a")):
        where = {**theory.learned(first, other), MU1: 0, MU2: 0}
        whole = sp.hessian(LOSS, ys).subs(where).subs({U["b"]: side, U["c"]: side}).applyfunc(sp.expand)
        polynomial = (variable * sp.eye(8) + whole).det(method="berkowitz")
        roots = sp.Mul(*((variable - value) ** count for value, count in theory.spectrum(strategy).items()))
        page.check(
            f"the characteristic polynomial for $u_b = u_c = s$, $\\mu = 0$, {strategy} learned, from the spectrum "
            "of the library",
            polynomial,
            roots,
        )
    page.text(
        r"""All are real, six are negative and the two zeros lie along the surface: each point of it attracts what is
        near and transverse to it. The competition cost alone keeps $d$ down, at the rate $\alpha w_Cu_a^2$. For
        $\mu_{icl} = \mu_{ciwl} = 0$ the surface of CIWL attracts as well, and **what is learned first stays**."""
    )


def growth(page: Page) -> None:
    page.section("Both mu positive: growth without end")
    page.text(
        r"""Beside the plateau there is no equilibrium at all. A bounded orbit of the gradient flow of a polynomial
        tends to an equilibrium (Łojasiewicz), so the norms grow without bound; and $b$ must, since
        $|a|^2+|d|^2-|b|^2$ falls.
        With both learned, $a = S_{icl}/p$ and $d = S_{ciwl}/p$, $p = u_bu_c$. What the cost takes of $abc$ is held by
        $\mu_{ciwl}$, so that $e_1 = S_{icl} - abc$ is"""
    )
    held = {U["b"]: P / U["c"], U["d"]: S2 / P, **{V[x]: 0 for x in "abcd"}}
    slope = sp.diff(LOSS, U["a"]).subs(held)
    missing = ALPHA * WC * S2**2 * S1 / (MU2 * W1 * P**4 + ALPHA * WC * S2**2)
    page.equation("e_1", r"\frac{\alpha w_CS_{ciwl}^2S_{icl}}{\mu_{ciwl}w_{icl}p^4 + \alpha w_CS_{ciwl}^2}")
    page.check("the slope in $a$ vanishes there, for $dbc = S_{ciwl}$", slope.subs(U["a"], (S1 - missing) / P) + S1, S1)
    page.check(
        r"it is small once $\mu_{ciwl}w_{icl}p^2$ exceeds the pull of the cost $\alpha w_Cd^2$ (equal: one half)",
        missing.subs(MU2, ALPHA * WC * S2**2 / (W1 * P**4)) / S1,
        sp.Rational(1, 2),
    )
    page.text(
        r"""and the larger $p$, the better both are learned. For large $p$, $|a|^2+|d|^2 = O(p^{-2})$ is nothing against
        $|b|^2 = p$, and the balance reads $\dot p = 8\alpha C$, $C = \frac12w_CS_{icl}^2S_{ciwl}^2p^{-4}$:"""
    )
    page.equation(r"\frac{d}{dt}p^5", r"20\,\alpha w_CS_{icl}^2S_{ciwl}^2")
    page.check("this, in the library", theory.growth_of_shared(), 20 * ALPHA * WC * S1**2 * S2**2)
    page.check(
        "and $5p^4$ times the drift",
        theory.growth_of_shared(),
        5 * P**4 * 8 * ALPHA * (WC * (S1 / P) ** 2 * (S2 / P) ** 2 / 2),
    )
    side = sp.Symbol("delta", positive=True)
    p = U["b"] * sp.sqrt(U["b"] ** 2 - side)
    page.check(
        r"$|b|^2 - |c|^2 = \delta$ is conserved and does not matter: $p/|b|^2\to1$",
        sp.limit(p / U["b"] ** 2, U["b"], sp.oo),
        sp.Integer(1),
    )
    page.text(
        r"""**$p$ grows as $t^{1/5}$ and the cost falls as $t^{-4/5}$**: both strategies are learned, ever more slowly
        and ever better. The constant knows neither $\mu$ nor the start."""
    )


def boundary(page: Page) -> None:
    page.section("Both mu zero: the boundary between the two ends")
    page.text(
        r"""What is left of $a$ and $d$ once the residuals are gone, and without the cost, is a path in their plane:
        the balances $|b|^2 - |a|^2 - |d|^2$ and $|c|^2 - |a|^2 - |d|^2$ make $p = u_bu_c$ a function of both. With
        $x = u_ap/S_{icl}$ and $y = u_dp/S_{ciwl}$, which are 1 where a strategy is learned,"""
    )
    x, y = sp.symbols("x y")
    alone = {V[z]: 0 for z in "abcd"} | {ALPHA: 0, MU1: 0, MU2: 0}
    shares = {U["a"]: x * S1 / (U["b"] * U["c"]), U["d"]: y * S2 / (U["b"] * U["c"])}
    velocity = {z: (-sp.diff(LOSS, U[z]).subs(alone)).subs(shares) for z in "ad"}
    ratio = PLANES["d"].target / PLANES["a"].target * (1 - y) / (1 - x)
    page.equation(r"\frac{du_a}{du_d}", r"\frac{|d^*|}{|a^*|}\,\frac{1-y}{1-x}")
    page.check("this, from the slopes of the loss", sp.simplify(velocity["a"] / velocity["d"]), ratio)
    page.text(
        r"""To first order in what is learned both drives are constant, and $|a^*|u_a - |d^*|u_d$ does not change. The
        two ends are $x = 1$ and $y = 1$; the boundary runs into the point at which both come together, $u_a =
        \theta|a^*|$ and $u_d = \theta|d^*|$ with $\theta p = |b^*||c^*|$, and $p$ from the balances. So **ICL is
        learned where**"""
    )
    side, meets = theory.boundary()
    t = {z: PLANES[z].target for z in "abcd"}
    page.lines(r"$$ |a^*|u_a - |d^*|u_d + \big(|d^*|^2 - |a^*|^2\big)\theta > 0 $$")
    theta = sp.Symbol("theta", positive=True)
    together = {U["a"]: theta * t["a"], U["d"]: theta * t["d"]}
    page.check("this is zero where both are learned", 1 + side.subs(together), sp.Integer(1))
    slope = -sp.diff(side, U["d"]) / sp.diff(side, U["a"])
    page.check("and its slope $du_a/du_d$ is that of the constant drives", slope, ratio.subs({x: 0, y: 0}))
    page.check(
        r"the balances at that point: $b^2c^2\theta^2 = |b^*|^2|c^*|^2$, once $u_a$, $u_d$ have grown to it",
        meets.subs(together),
        (U["b"] * U["c"] * theta) ** 2 - (t["b"] * t["c"]) ** 2,
    )
    page.text(
        r"""For $\theta$ much larger than the start this is $|d^*| > |a^*|$, the one that is driven more; the start
        counts with its own drive. Past the first order the boundary bends: the point is a saddle, and the slope with
        which the boundary enters it is, with $H = u_a^2(u_b^{-2}+u_c^{-2})$ and $\rho = |d^*|/|a^*|$,"""
    )
    a, d, at, rho, b2, c2 = sp.symbols("a d u_a rho b2 c2", positive=True)  # b2, c2: the squares of b and c there
    gained = a**2 + d**2 - (1 + rho**2) * at**2
    grown = sp.sqrt((1 + gained / b2) * (1 + gained / c2))
    field = sp.Matrix([rho * (1 - d * grown / (rho * at)), 1 - a * grown / at])
    rows = field.jacobian([a, d]).subs({a: at, d: rho * at})
    total = at**2 * (1 / b2 + 1 / c2)
    bent = sp.sqrt((1 + rho**2 * total) / (1 + total))
    moved = rows * sp.Matrix([bent, 1])
    page.equation(r"\frac{du_a}{du_d}", r"\sqrt{\frac{1+\rho^2H}{1+H}},\qquad\text{between }1\text{ and }\rho")
    page.check("an eigenvector of the path at the saddle", moved[0], moved[1] * bent)
    page.claim("with a negative eigenvalue", bool(moved[1].subs({at: 1, rho: 2, b2: 3, c2: 2}) < 0))


def measured_boundary() -> xr.DataArray:
    """The overlap of d at which the end changes over the first order's, along ratio of targets, u_a and alpha."""
    model = coopetition(dims=(20, 20, 20, 20), mu_icl=0.0)
    d = xr.DataArray(np.linspace(0, 4, 161), dims="d", coords={"d": np.linspace(0, 4, 161)})
    rho, a = (xr.DataArray(x, dims=n, coords={n: x}) for n, x in (("rho", [1.1, 1.25, 1.5]), ("a", [0.1, 0.5, 1.0])))
    norm = 20**0.5
    start = tm.aligned_start(
        model,
        overlap={"a": a, "b": 0.1, "c": 0.1, "d": d},
        target_norm={"a": norm / rho**0.5, "b": norm, "c": norm, "d": norm * rho**0.5},
    )
    end = tm.flow(model, start, 1e9, times=[1e9], progress=False, alpha=[1e-4, 1e-2, 0.1]).isel(time=0)
    icl = end.loss_icl < end.unlearned_icl / 2
    assert bool((icl.astype(int).diff("d") <= 0).all())  # one boundary
    step = float(d[1] - d[0])
    said = (theory.side_of_boundary(start) > 0).sum("d") * step
    return icl.sum("d") * step / said


def simulation(page: Page) -> None:
    page.section("Prediction and simulation")
    figure, axes = plotting.new(2, 3, 7.2, 4.6)
    for panel, (name, (mu1, mu2, end)) in zip(axes.flat, SIGNS.items(), strict=False):
        model = tm.coopetition(alpha=0.1, mu_icl=mu1, mu_ciwl=mu2)
        start = tm.aligned_start(model, overlap=0.1)
        runs = tm.flow(model, start, 1e8, times=np.geomspace(100, 1e8, 300), method="LSODA", rtol=1e-8)
        said, found = tm.theory.asymptotic_strategy(model, start).item(), tm.measure(runs).winner.item()
        assert said == found == (end or said), (name, said, found)
        for mechanism in ("icl", "ciwl"):
            share = runs[f"loss_{mechanism}"] / runs[f"unlearned_{mechanism}"]
            panel.plot(runs.time, share, color=plotting.COLOURS[mechanism], label=plotting.NAMES[mechanism])
        panel.set(
            xscale="log", ylim=(-0.05, 1.1), xlabel="time", ylabel="loss / unlearned loss", xticks=[1e2, 1e5, 1e8]
        )
        panel.set_title(name, fontsize="small")
    axes[0, 0].legend()
    model = tm.coopetition(alpha=0.1, mu_icl=0.1, mu_ciwl=0.1)
    times = np.geomspace(1e3, 1e13, 200)
    runs = tm.flow(model, tm.aligned_start(model, overlap=0.1), 1e13, times=times, method="LSODA", rtol=1e-8)
    values = {PLANES[x].target: norm for x, norm in model.target_norms.items()}
    values |= {WEIGHTS[t]: w for t, w in model.weights.items()} | {ALPHA: 0.1}
    law = (float(theory.growth_of_shared().subs(values)) * times) ** 0.2
    products = float(sp.sympify(S1 * S2).subs(values))
    cost = float(sp.sympify(WC).subs(values)) / 2 * products**2 / law**4
    p = (runs.overlap.sel(vector="b") * runs.overlap.sel(vector="c")).values
    page.claim("$p$ is within 1 % of the law at the end", abs(p[-1] / law[-1] - 1) < 0.01)
    page.claim("and $C$ within 4 %", abs(float(runs.cost[-1]) / cost[-1] - 1) < 0.04)
    for panel, value, predicted, name in (
        (axes[1, 1], p, law, "p = bc"),
        (axes[1, 2], runs.cost, cost, "competition C"),
    ):
        panel.loglog(times, value, color=plotting.COLOURS["shared"], lw=2.2, label="flow")
        panel.loglog(times, predicted, "k:", label="law")
        panel.set(xlabel="time", ylabel=name, xticks=[1e4, 1e8, 1e12])
        panel.legend()
    plotting.panel_letters(axes.flat)
    page.figure(
        figure,
        """(a-d) The four cases of signs, from one small aligned start of the published model (alpha = 0.1; a positive
        mu is 0.1): the ends are those of the table. (e, f) Both mu positive: the shared part grows as the fifth root
        of time, the competition cost falls as its power -4/5; the law (dotted) has no free constant.""",
    )
    found = xr.load_dataset(page.uses(DATA), engine="h5netcdf")
    right = found.predicted == found.measured
    open_ends = (found.mu_icl == 0) & (found.mu_ciwl == 0)
    page.claim(
        "in random sets in which a $\\mu$ is positive the prediction is always right", bool(right[~open_ends].all())
    )
    share, where = float(right[open_ends].mean()), found.isel(set=open_ends.values)
    longer, line, always = (float((where.measured == other).mean()) for other in (where.longer, where.boundary, "icl"))
    page.text(
        rf"""In {float((~open_ends).mean()):.0%} of {right.size:,} random sets of dimensions, targets, starts and
        parameters (`benchmarks/theory_asymptotics.py`) a $\mu$ is positive, and the signs alone decide. The number
        that says something is that of the other {int(open_ends.sum()):,}, in which both are zero.
        `tm.theory.asymptotic_strategy` takes the strategy that has lost the larger share of its loss when the plateau
        ends, by [the weighted sum of the losses](plateau.md): **right in {share:.1%} of them**. One answer for all of
        them, ICL, is right in {always:.1%}, and $|d^*| > |a^*|$ in {longer:.1%}. The boundary above, at the start,
        is right in {line:.1%}: most of these starts have residuals as long as their targets and a cost that is not
        small, and it knows neither."""
    )
    edge = measured_boundary()
    page.text(
        r"""For what it is made for, small aligned starts, it is a boundary. The overlap of $d$ at which the end
        changes, measured over predicted, for $|d^*|/|a^*|$ = 1.1, 1.25, 1.5 and $u_a$ = 0.1, 0.5, 1:"""
    )
    page.lines("\n".join(
        ["", "| alpha | smallest | mean | largest |", "|---|---|---|---|"]
        + [f"| {float(x.alpha):g} | {float(x.min()):.2f} | {float(x.mean()):.2f} | {float(x.max()):.2f} |" for x in
           edge.transpose("alpha", ...)]
        + [""]
    ))  # fmt: skip
    page.claim(
        r"for $\alpha = 10^{-4}$ it is within 16 % of the measured one",
        bool(abs(edge.sel(alpha=1e-4) - 1).max() < 0.16),
    )
    page.text(
        r"""What is missing at small $\alpha$ is the bend: the boundary enters the saddle less steeply. The cost moves
        it further."""
    )


def build() -> Page:
    page = Page(
        __file__,
        "Which strategy is learned in the end",
        [
            r"The published loss $(L_{icl}+\mu_{icl})(L_{ciwl}+\mu_{ciwl}) + \alpha C$ with $\alpha > 0$, "
            r"$\mu_{icl},\mu_{ciwl} \ge 0$; gradient flow, no weight decay.",
            "Starts are generic, with residuals: they do not lie on the set that ends on the plateau.",
            "For the growth: $p = u_bu_c$ is large, so that terms of relative order $p^{-3}$ are dropped.",
        ],
    )
    page.section("Statement")
    page.lines(
        r"""
| | equilibria beside the plateau | in the end |
|---|---|---|
| $\mu_{icl} > 0 = \mu_{ciwl}$ | CIWL learned, $a = 0$ | CIWL: ICL is transient |
| $\mu_{icl} = 0 < \mu_{ciwl}$ | ICL learned, $d = 0$ | ICL |
| $\mu_{icl} = \mu_{ciwl} = 0$ | both surfaces | the start decides |
| $\mu_{icl}, \mu_{ciwl} > 0$ | none | both; $bc$ grows as $t^{1/5}$ |
"""
    )
    page.text(
        r"""The signs of the two $\mu$ decide, and neither their sizes nor $\alpha$, the dimensions or the targets;
        these say only when (see [the lifetime](lifetime.md))."""
    )
    for section in (balance, drives, plateau, spectra, growth, boundary, simulation):
        section(page)
    page.section("Limits")
    page.text(
        r"""That an orbit reaches an equilibrium where there is one, and does not grow for ever, is measured and not
        proved. The end may be far off: the time it takes grows as $\alpha/\mu^2$, and without bound as $\mu\to0$. For
        $\alpha = 0$ nothing of this holds: $|a|^2+|d|^2-|b|^2$ is [conserved](conserved.md). With
        [weight decay](weight_decay.md) the surfaces become isolated points and $\alpha$ and the sizes do matter; with
        [gradient noise](discrete.md) ICL can last."""
    )
    page.section("What is new and what is textbook")
    page.text(
        """Linearisation, and that a gradient flow has real spectra, are textbook. New here: the classification by
        the signs of the two mu, the growth where both are positive, and the boundary where both are zero."""
    )
    return page


if __name__ == "__main__":
    build().write()
