"""Units: what is left of the constants of a product loss are four dimensionless groups."""

from __future__ import annotations

import numpy as np
import sympy as sp
from page import Page, assert_equal
from scipy.optimize import brentq

import toymodel as tm
from toymodel.model import Model
from toymodel.presets import coopetition, long_pathway, shared_encoder
from toymodel.reduction import reduced_loss, symbols
from toymodel.theory.cooperation import D0, K1, K2, SCALE, law_expressions
from toymodel.theory.units import GROUPS, group_expressions, groups


def velocities(model: Model) -> tuple[list[sp.Symbol], list[sp.Expr]]:
    """The coordinates and their velocities under gradient flow, from the reduced loss."""
    planes, weights, parameters = symbols(model.form)
    loss = sp.sympify(reduced_loss(model.form, planes, weights, parameters))
    ys = [y for x in model.vectors for y in planes[x][:2]]
    return ys, [-sp.diff(loss, y) for y in ys]


def in_units(model: Model) -> tuple[list[sp.Expr], list[sp.Expr]]:
    """The velocities of x / length in t / time, and those of the system in which S_1, both weights and w_c are 1.

    The second has the targets 1 for b, c, a (and e), r for d, mu_i = m_i w_i S_i^2 / 2 and alpha = kappa.
    """
    ys, change = velocities(model)
    units = group_expressions(model.form)
    planes, weights, parameters = symbols(model.form)
    bare = {y: sp.Symbol(f"{y}_unit", real=True) for y in ys}
    scaled = [
        (f.subs({y: units["length"] * bare[y] for y in ys}, simultaneous=True) * units["time"] / units["length"])
        for f in change
    ]
    r = units["r"]
    plain = {planes[x].target: r if x == "d" else sp.Integer(1) for x in model.vectors}
    plain |= {w: sp.Integer(1) for w in weights.values()}
    plain |= {parameters["alpha"]: units["kappa"], parameters["mu_icl"]: units["m_icl"] / 2}
    plain |= {parameters["mu_ciwl"]: units["m_ciwl"] * r**2 / 2}
    return scaled, [f.subs(plain, simultaneous=True).subs(bare, simultaneous=True) for f in change]


def build() -> Page:
    page = Page(
        __file__,
        "Units: four groups",
        [
            "The exact reduction, gradient flow.",
            r"The loss $(L_1+\mu_1)(L_2+\mu_2)+\alpha C$ with $n_1$, $n_2$ and $n_C$ vectors in its terms, a vector "
            "counted as often as it occurs.",
        ],
    )
    page.section("Statement")
    page.text(
        r"""Sixteen constants (four target norms, three weights, alpha, two mu, and the numbers of entries, which enter
        through the weights) are four. In the units of length and time below, gradient flow of the overlaps and
        residuals depends on $r$, $m_1$, $m_2$ and $\kappa$ alone. Every range of validity in this theory is stated
        in them."""
    )
    page.section("The groups")
    page.text(
        r"""A mechanism has the loss $\frac w2(S^2 - 2SP + Q)$, with $P=\prod u$, $Q=\prod(u^2+v^2)$: of the targets
        only their product $S=\prod|x^*|$ enters. A cost has $\frac{w_C}2Q$. With $x=\ell\tilde x$, $t=\tau\tilde t$ and
        $\ell=S_1^{1/n_1}$ both products are counted in the unit of their mechanism:"""
    )
    names = {"length": r"\ell", "time": r"\tau", "r": "r", "m_icl": "m_1", "m_ciwl": "m_2", "kappa": r"\kappa"}
    for name, value in group_expressions(coopetition().form).items():
        page.equation(names[name], value)
    for model, what in (
        (coopetition(), "the published model"),
        (long_pathway(), "the model with a longer pathway"),
        (shared_encoder(), "the model with a shared encoder, whose $b$ and $c$ occur twice"),
    ):
        scaled, plain = in_units(model)
        for one, other in zip(scaled, plain, strict=True):
            page_check(one, other)
        page.claim(
            f"{what} ({dict(model.mechanisms)}): every velocity in these units is that of the system with targets 1, "
            r"$|d^*|=r$, weights 1, $\mu_i=m_iS_i^2/2$ and $\alpha=\kappa$",
            True,
        )
    numbers = groups(coopetition())
    values = ", ".join(f"${names[g]}$ = {float(numbers[g]):.3g}" for g in GROUPS)
    page.text(
        f"""At the paper's dimensions and values {values}; the unit of length is {float(numbers["length"]):.3g} and that
        of time {float(numbers["time"]):.3g} steps of size 1."""
    )
    page.section("What follows at once")
    page.text(
        r"""On the [plateau](plateau.md) ICL is driven by $k_1=(l_2+\mu_2)w_1S_1$ and CIWL by $k_2=(l_1+\mu_1)w_2S_2$.
        Their ratio is a number made of the groups:"""
    )
    planes, weights, parameters = symbols(coopetition().form)
    s1, s2 = (sp.prod([planes[x].target for x in xs]) for xs in ("abc", "dbc"))
    l1, l2 = weights["icl"] * s1**2 / 2, weights["ciwl"] * s2**2 / 2
    k1 = (l2 + parameters["mu_ciwl"]) * weights["icl"] * s1
    k2 = (l1 + parameters["mu_icl"]) * weights["ciwl"] * s2
    g = group_expressions(coopetition().form)
    page.equation(r"\frac{k_2}{k_1}", r"\frac1r\,\frac{1+m_1}{1+m_2}")
    page.check("this ratio", k2 / k1, (1 + g["m_icl"]) / (1 + g["m_ciwl"]) / g["r"])
    page.check(
        "and what decides which mechanism has learned the larger share",
        (k1 / s1) / (k2 / s2),
        g["r"] ** 2 * (1 + g["m_ciwl"]) / (1 + g["m_icl"]),
    )
    page.text(
        r"""**A no-go.** From starts of one small scale ICL comes first only if $r^2(1+m_2) > 1+m_1$, and CIWL can speed
        it up much only if $k_2/k_1=(1+m_1)/r(1+m_2)$ is large. Multiplied, $k_2/k_1 < r$, and with $m_2\ge0$ and
        $m_1$ of order one both cannot be: the published loss has ICL first and in need of CIWL only where
        $1+m_1$ lies between $r(1+m_2)k_2/k_1$ and $r^2(1+m_2)$, that is for a large $\mu_1$ and a larger $r$."""
    )
    need = least_ratio(10.0)
    page.text(
        f"""The speed-up by CIWL from equal scales is closed and a function of $k_2/k_1$ alone
        ([cooperation](cooperation.md)). At the paper's groups it is {speed_up(paper_ratio()):.2f}. A speed-up of 10
        needs $k_2/k_1$ of {need:.1f}, so $r>{need:.1f}$ and $1+m_1>{need**2:.0f}$: $\\mu_{{icl}}$ would have to be
        {need**2:.0f} times the whole loss of ICL, which could then hardly be worth learning. A model in which ICL comes
        first, and does not come without CIWL, from equal scales, needs another loss or another pathway:
        [the shared encoder](cooperation.md)."""
    )
    worst = agreement()
    assert worst < 1e-9, worst
    page.section("What it predicts")
    page.text(
        f"""Two systems with other dimensions, weights, targets and parameters but equal groups, from starts in
        proportion to their lengths, run by scipy's LSODA to the time at which ICL has come and gone: the overlaps
        and residuals in their units differ by at most {1e-9:g} (tests; here {worst:.0e})."""
    )
    page.section("What is new and what is textbook")
    page.text(
        """Counting units is textbook. That the targets enter through two products only, that four groups are left, and
        the no-go are new here."""
    )
    return page


def speed_up(ratio: float) -> float:
    """How much sooner ICL comes with CIWL, from equal small scales, for k_2 / k_1 = ratio."""
    return float(law_expressions(1)["speed_up"].subs({SCALE: 1, D0: 1, K1: 1, K2: sp.Float(ratio)}))


def paper_ratio() -> float:
    """k_2 / k_1 of the published model, from its groups."""
    g = {name: float(value) for name, value in groups(coopetition()).items()}
    return (1 + g["m_icl"]) / (1 + g["m_ciwl"]) / g["r"]


def least_ratio(wanted: float) -> float:
    """The k_2 / k_1 at which the speed-up is `wanted`."""
    return float(brentq(lambda ratio: speed_up(ratio) - wanted, 1.0, 10 * wanted))


def page_check(one: sp.Expr, other: sp.Expr) -> None:
    assert_equal(one, other, "a velocity in units", points=2)


def twin(model: Model, length: float, time: float) -> tuple[Model, dict[str, float]]:
    """A model with the same groups whose units are `length` and `time` times those of the model, and its weights."""
    norms = dict(model.target_norms)
    icl, ciwl = model.mechanisms["icl"], model.mechanisms["ciwl"]
    shared = [x for x in model.vectors if x in icl and x in ciwl]
    stretched = {x: norms[x] * length for x in model.vectors}
    stretched[shared[0]], stretched[shared[1]] = stretched[shared[0]] * 1.7, stretched[shared[1]] / 1.7
    n1, n2, nc = len(icl), len(ciwl), 2
    both = 1 / (time * length ** (2 * n1 + 2 * n2 - 2))  # of the product of the weights
    weights = {"icl": model.weights["icl"] * 3.0, "ciwl": model.weights["ciwl"] * both / 3.0, "cost": 0.01}
    parameters = {
        "mu_icl": model.parameters["mu_icl"] * 3.0 * length ** (2 * n1),
        "mu_ciwl": model.parameters["mu_ciwl"] * both / 3.0 * length ** (2 * n2),
        "alpha": model.parameters["alpha"] * model.weights["cost"] / 0.01 * both * length ** (2 * n1 + 2 * n2 - 2 * nc),
    }
    return Model(model.mechanisms, model.loss, model.dims, model.costs, parameters, weights, stretched), parameters


def agreement(model: Model | None = None, end: float = 8_000.0, start_at: float = 1.0) -> float:
    """The largest difference of two systems with equal groups, in units of the larger coordinate."""
    model = coopetition(mu_ciwl=0.01) if model is None else model
    other, _ = twin(model, 1.3, 0.4)
    one_groups, other_groups = groups(model), groups(other)
    assert all(abs(float(one_groups[g] / other_groups[g]) - 1) < 1e-12 for g in GROUPS)
    ratio = {name: float(other_groups[name] / one_groups[name]) for name in ("length", "time")}
    start = tm.aligned_start(model, overlap={"a": 0.3, "b": 0.2, "c": -0.1, "d": 0.4}, residual=0.5)
    start = start.assign(overlap=start_at * start["overlap"], residual=start_at * start["residual"])
    scaled = tm.aligned_start(other, overlap=0.0).assign(
        overlap=start["overlap"] * ratio["length"], residual=start["residual"] * ratio["length"]
    )
    times = np.linspace(0, end, 60)
    given = {"method": "LSODA", "rtol": 1e-13, "atol": 1e-14}
    one = tm.flow(model, start, end, times=times, **given)
    two = tm.flow(other, scaled, end * ratio["time"], times=times * ratio["time"], **given)
    differences = [
        float(abs(two[name].values / ratio["length"] - one[name].values).max()) for name in ("overlap", "residual")
    ]
    return max(differences) / float(abs(one["overlap"]).max())


if __name__ == "__main__":
    build().write()
