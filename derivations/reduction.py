"""The exact reduction: from the loss on tensors to two numbers a vector, for flow, for descent and with clamped
entries.

The loss is never retyped: every expression comes from `toymodel.reduction` and from the loss function of a model;
what the tensors contribute is summed out from the definition of the outer product.
"""

from __future__ import annotations

import itertools

import sympy as sp
from page import Page, assert_equal

from toymodel.model import Form, Model
from toymodel.presets import coopetition, induction
from toymodel.reduction import Plane, cost_loss, mechanism_loss, reduced_loss, symbols


def entry_sums(x: str) -> tuple[sp.Expr, sp.Expr, sp.Expr]:
    """|x|^2, x.x* and |x*|^2 as sums over the entries 1..n_x, with n_x a symbol."""
    i, n = sp.Symbol(f"i_{x}", integer=True), sp.Symbol(f"n_{x}", integer=True, positive=True)
    value, target = sp.IndexedBase(x)[i], sp.IndexedBase(f"{x}*")[i]
    return sp.Sum(value**2, (i, 1, n)), sp.Sum(value * target, (i, 1, n)), sp.Sum(target**2, (i, 1, n))


def summed(letters: str) -> sp.Expr:
    """The sum over all entries of (x* y* ... - x y ...)^2 with symbolic dimensions.

    Each monomial of the expanded square is a product of factors with one index each; its sum over all indices is the
    product of the sums over each of them.
    """
    indices = sp.symbols(f"i0:{len(letters)}", integer=True)
    made = [sp.IndexedBase(x)[i] for x, i in zip(letters, indices, strict=True)]
    wanted = [sp.IndexedBase(f"{x}*")[i] for x, i in zip(letters, indices, strict=True)]
    total = sp.Integer(0)
    for monomial in sp.Add.make_args(sp.expand((sp.prod(wanted) - sp.prod(made)) ** 2)):
        number, factors = monomial.as_coeff_mul()
        assert all(sum(factor.has(i) for i in indices) == 1 for factor in factors)
        for x, i in zip(letters, indices, strict=True):
            of_index = sp.Mul(*(factor for factor in factors if factor.has(i)))
            same, n = sp.Symbol(f"i_{x}", integer=True), sp.Symbol(f"n_{x}", integer=True, positive=True)
            number *= sp.Sum(of_index.subs(i, same), (same, 1, n))
        total += number
    return total


def entry_by_entry(letters: str, sizes: tuple[int, ...]) -> sp.Expr:
    """The same sum written out for vectors of these sizes."""
    entries = []
    for where in itertools.product(*(range(1, n + 1) for n in sizes)):
        made, wanted = (
            sp.prod([sp.IndexedBase(f"{x}{end}")[i] for x, i in zip(letters, where, strict=True)]) for end in ("", "*")
        )
        entries.append((wanted - made) ** 2)
    return sp.Add(*entries)


def overlap_form(q: list[sp.Expr], m: list[sp.Expr], norms: list[sp.Expr]) -> sp.Expr:
    """prod |x*|^2 - 2 prod x.x* + prod |x|^2, with q = |x|^2 and m = x.x*: the sum over entries factorises."""
    return sp.prod([t**2 for t in norms]) - 2 * sp.prod(m) + sp.prod(q)


def drift(form: Form, values: dict[str, sp.Expr], q: dict, m: dict, norms: dict) -> dict[str, tuple[sp.Expr, sp.Expr]]:
    """For each vector, the coefficients (A, B) of dL/dx = A x + B x*, for a loss given by products q = |x|^2, m =
    x.x*."""
    loss = sp.sympify(form.loss(**values, **{p: sp.Symbol(p, nonnegative=True) for p in form.parameters}))
    return {x: (2 * sp.diff(loss, q[x]), sp.diff(loss, m[x])) for x in form.vectors}


def products(form: Form) -> tuple[dict, dict, dict, dict]:
    """Symbols q_x, m_x, T_x, and every term of the model written with them."""
    q, m = ({x: sp.Symbol(f"{kind}_{x}", real=True) for x in form.vectors} for kind in "qm")
    norms = {x: sp.Symbol(f"T_{x}", positive=True) for x in form.vectors}
    weights = {t: sp.Symbol(f"w_{t}", positive=True) for t in form.terms}
    values = {}
    for t, letters in form.terms.items():
        squares = [q[x] for x in letters]
        if t in form.mechanisms:
            inside = overlap_form(squares, [m[x] for x in letters], [norms[x] for x in letters])
        else:
            inside = sp.prod(squares)
        values[t] = weights[t] / 2 * inside
    return q, m, norms, values


def from_tensors(page: Page) -> None:
    """The sum over entries is a function of norms and overlaps, for any number of vectors and any dimensions."""
    page.section("From tensors to products")
    page.text(
        r"""A sum over all entries of a product is a product of sums, $\sum_{ij\dots} (x_i y_j \cdots)^2 = |x|^2 |y|^2
        \cdots$ and $\sum_{ij\dots} x^*_i x_i\, y^*_j y_j \cdots = (x\cdot x^*)(y\cdot y^*)\cdots$, whatever the
        dimensions $n_x, n_y, \dots$ are: they enter only through the weight $w_m = 1/(n_x n_y \cdots)$ of the mean.
        Hence"""
    )
    page.equation(r"L_m", r"\tfrac{w_m}{2}\Big[\prod |x^*|^2 - 2\prod x\cdot x^* + \prod |x|^2\Big]")
    for letters in ("a", "ab", "abc", "aab", "aebc"):
        q, m, squares = zip(*(entry_sums(x) for x in letters), strict=True)
        assert sp.expand(summed(letters) - overlap_form(q, m, [sp.sqrt(square) for square in squares])) == 0, letters
    page.claim(
        r"the sum over all entries is this form, with $\sum_{i=1}^{n_x}$ and $n_x$ a symbol: for a, ab, abc, aab, aebc",
        True,
    )
    for letters, sizes in (("a", (3,)), ("ab", (2, 3)), ("abc", (2, 1, 3)), ("aab", (2, 2, 3))):
        of_sizes = {sp.Symbol(f"n_{x}", integer=True, positive=True): n for x, n in zip(letters, sizes, strict=True)}
        left, right = entry_by_entry(letters, sizes), summed(letters).subs(of_sizes).doit()
        assert sp.expand(left - right) == 0, letters
    page.claim("and so is the sum that is written out entry by entry, for small dimensions", True)


def invariant_plane(page: Page, models: list[Model]) -> None:
    """The gradient of any loss of such terms lies in the plane of x and x*; its components in that plane."""
    page.section("The invariant plane")
    page.text(
        r"""Let $L$ be any differentiable function of the terms. It depends on the entries of $x$ through
        $q = |x|^2$ and $m = x\cdot x^*$ only, so that"""
    )
    page.equation(r"\nabla_x L", r"A\,x + B\,x^*,\qquad A = 2\,\partial L/\partial q,\quad B = \partial L/\partial m")
    gradient_in_an_entry(page, models)
    page.text(
        r"""Let $e = x^*/|x^*|$ and $x = u\,e + v\,w$, with $w\perp e$ a unit vector. Then $A x + B x^* = (A u + B
        |x^*|)\,e + A v\,w$ has no component outside of the plane $(e, w)$, and a step of descent gives"""
    )
    page.equation(r"x - \eta\,(A\,x + B\,x^*)", r"\big(u - \eta\,(A u + B |x^*|)\big)\,e + v\,(1 - \eta A)\,w")
    a, b, eta, u, v, norm, e, w = sp.symbols("A B eta u v T e_k w_k", real=True)
    x_k, target_k = u * e + v * w, norm * e
    page.check(
        "in every entry $k$, for any step size: the plane and the direction $w$ stay",
        x_k - eta * (a * x_k + b * target_k),
        (u - eta * (a * u + b * norm)) * e + v * (1 - eta * a) * w,
    )
    page.text(
        r"""So $w$ never turns: the residual decays, $\dot v = -A v$ along the flow (it shrinks where $A > 0$), and is
        multiplied by $1 - \eta A$ by a step of descent. Since $q = u^2 + v^2$ and $m = |x^*| u$, the chain rule gives
        $\partial L/\partial u = A u + B |x^*|$ and $\partial L/\partial v = A v$: **the dynamics in $(u, v)$ is
        gradient flow, or gradient descent, of the reduced loss.** Nothing was assumed of $L$ but that it is a function
        of the terms."""
    )
    for model in models:
        form = model.form
        q, m, norms, values = products(form)
        planes, weights, parameters = symbols(form)
        reduced = reduced_loss(form, planes, weights, parameters)
        inside = {q[x]: planes[x].u ** 2 + planes[x].v ** 2 for x in form.vectors}
        inside |= {m[x]: norms[x] * planes[x].u for x in form.vectors}
        for x, (a, b) in drift(form, values, q, m, norms).items():
            a, b = a.subs(inside), b.subs(inside)
            u, v = planes[x].u, planes[x].v
            assert_equal(a * u + b * norms[x], sp.diff(reduced, u), f"dL/du_{x}")
            assert_equal(a * v, sp.diff(reduced, v), f"dL/dv_{x}")
        page.claim(
            f"for $L = {sp.latex(form.expression)}$ the components of the gradient in each plane are the "
            "derivatives of `toymodel.reduction.reduced_loss`",
            True,
        )


def gradient_in_an_entry(page: Page, models: list[Model]) -> None:
    """dL/dx_k = A x_k + B x*_k for the entry k of each vector, from |x|^2 and x.x* as sums over its entries."""
    k = sp.Symbol("k", integer=True)
    for model in models:
        q, m, _norms, values = products(model.form)
        loss = sp.sympify(model.form.loss(**values, **{p: sp.Symbol(p) for p in model.form.parameters}))
        for x in model.vectors:
            square, overlap, _ = entry_sums(x)
            x_k, target_k = sp.IndexedBase(x)[k], sp.IndexedBase(f"{x}*")[k]
            slope = sp.diff(loss.subs({q[x]: square, m[x]: overlap}), x_k).doit()
            slope = slope.replace(sp.Piecewise, lambda inside, _otherwise: inside[0])  # 1 <= k <= n
            a, b = 2 * sp.diff(loss, q[x]), sp.diff(loss, m[x])
            names = {square: q[x], overlap: m[x], x_k: sp.Symbol("x_k"), target_k: sp.Symbol("y_k")}
            assert_equal(slope.xreplace(names), a * sp.Symbol("x_k") + b * sp.Symbol("y_k"), f"dL/d{x}_k")
    page.claim(
        r"$\partial L/\partial x_k = A\,x_k + B\,x^*_k$, with $q = \sum_i x_i^2$ and $m = \sum_i x_i x^*_i$ over $n_x$ "
        "entries, $n_x$ a symbol, for every vector of three models",
        True,
    )


def arbitrary_loss(page: Page) -> None:
    """The same for an undetermined function F of two mechanisms and a cost: no property of a particular loss is
    used."""
    q, m, t = (sp.Symbol(name, positive=True) for name in ("q", "m", "T"))
    u, v = sp.symbols("u v", real=True)
    rest = sp.symbols("Q1 M1 S1 Q2 M2 S2 K", positive=True)
    function = sp.Function("F")
    terms = [
        t**2 * rest[2] - 2 * m * rest[1] + q * rest[0],
        t**2 * rest[5] - 2 * m * rest[4] + q * rest[3],
        q * rest[6],
    ]
    loss = function(*terms)
    inside = {q: u**2 + v**2, m: t * u}
    a, b = 2 * sp.diff(loss, q), sp.diff(loss, m)
    reduced = loss.subs(inside)
    for name, left, right in (("u", a * u + b * t, sp.diff(reduced, u)), ("v", a * v, sp.diff(reduced, v))):
        difference = sp.simplify((left.subs(inside) - right).doit())
        page.claim(
            rf"for an undetermined $F(L_1, L_2, C)$ the component along ${name}$ is $\partial L/\partial {name}$",
            difference == 0,
        )


def without_cancellation(page: Page) -> None:
    """The form that the library computes is the same, and a sum of squares."""
    page.section("The reduced loss as it is computed")
    page.text(
        r"""With $T = \prod|x^*|$, $U = \prod u$, $Q = \prod (u^2 + v^2)$ the bracket is $T^2 - 2TU + Q = (T-U)^2 + (Q
        - U^2)$, and $Q - U^2 = \sum_i v_i^2 \prod_{j<i}(u_j^2+v_j^2)\prod_{j>i}u_j^2$ has no cancellation: a loss of
        $10^{-30}$ is as accurate as a loss of 1."""
    )
    for n in (1, 2, 3, 4):
        planes = [Plane(*sp.symbols(f"u{i} v{i}", real=True), sp.Symbol(f"T{i}", positive=True)) for i in range(n)]
        q, m, norms = [p.u**2 + p.v**2 for p in planes], [p.target * p.u for p in planes], [p.target for p in planes]
        w = sp.Symbol("w", positive=True)
        assert_equal(mechanism_loss(planes, w), w / 2 * overlap_form(q, m, norms), f"{n} vectors")
        assert_equal(cost_loss(planes, w), w / 2 * sp.prod(q), f"{n} vectors")
    page.claim("`mechanism_loss` and `cost_loss` equal the product form, for 1 to 4 vectors", True)


def clamped_head(page: Page) -> None:
    """A vector whose first k entries are held at the target: overlap and residual from the coordinates of the tail."""
    page.section("A vector with its first k entries clamped to the target")
    page.text(
        r"""Only the tail of $x$ moves, and the loss depends on it through $|x|^2 = |x^*_K|^2 + |x_F|^2$ and $x\cdot
        x^* = |x^*_K|^2 + x_F\cdot x^*_F$ ($K$: clamped, $F$: free entries). By the same argument the plane of $x_F$
        and $x_F^*$ is invariant. Let $(u, v)$ be the coordinates of $x_F$ in it, $c = |x^*_K|/|x^*|$ and $s =
        |x^*_F|/|x^*|$. Then"""
    )
    u, v = sp.symbols("u v", real=True)
    target, angle = sp.Symbol("T", positive=True), sp.Symbol("theta", positive=True)
    plane = Plane(u, v, target, sp.cos(angle), sp.sin(angle))
    named = Plane(u, v, target, sp.Symbol("c", positive=True), sp.Symbol("s", positive=True))
    page.equation(r"\frac{x\cdot x^*}{|x^*|}", named.overlap)
    page.equation(r"\Big|x - \frac{x\cdot x^*}{|x^*|^2}x^*\Big|^2", named.residual_square)
    square = (target * sp.cos(angle)) ** 2 + u**2 + v**2
    dot = (target * sp.cos(angle)) ** 2 + u * target * sp.sin(angle)
    page.check("the overlap is $x\\cdot x^*/|x^*|$", plane.overlap, dot / target)
    page.check("overlap and residual add up to $|x|^2$", plane.overlap**2 + plane.residual_square, square)
    page.check("nothing clamped ($s = 1$): the residual is $v$", Plane(u, v, target).residual_square, v**2)
    form = induction().form
    planes, weights, parameters = symbols(form, clamped="c")
    reduced = reduced_loss(form, planes, weights, parameters)
    q, m, norms, values = products(form)
    a, b = drift(form, values, q, m, norms)["c"]
    head, tail = sp.cos(angle), sp.sin(angle)
    held = {planes["c"].head: head, planes["c"].tail: tail}
    inside = {q[x]: planes[x].u ** 2 + planes[x].v ** 2 for x in "ab"} | {m[x]: norms[x] * planes[x].u for x in "ab"}
    u_c, v_c, t_c = planes["c"].u, planes["c"].v, norms["c"]
    inside |= {q["c"]: (head * t_c) ** 2 + u_c**2 + v_c**2, m["c"]: (head * t_c) ** 2 + u_c * tail * t_c}
    page.check(
        "the gradient on the free entries along $x^*_F$ is the derivative of the reduced loss in $u$",
        a.subs(inside) * u_c + b.subs(inside) * tail * t_c,
        sp.diff(reduced, u_c).subs(held),
    )
    page.check("and along the residual, in $v$", a.subs(inside) * v_c, sp.diff(reduced, v_c).subs(held))


def balances(page: Page, model: Model) -> None:
    """Squared norms: what Model.conserved() lists."""
    page.section("Squared norms")
    page.text(
        r"""Along the flow $\frac{d}{dt}|x|^2 = -2(u\,\partial_u L + v\,\partial_v L)$. For a mechanism that holds $x$
        $n$ times this is $-2\,\frac{\partial L}{\partial L_m}\,n\,w_m(Q - TU)$, for a cost $-2\,\frac{\partial
        L}{\partial C}\,n\cdot 2C$: the same for each of its vectors. Integer combinations in which the mechanisms
        cancel are balanced, and conserved where the costs cancel too (`Model.conserved`). For the paper's model:"""
    )
    form = model.form
    planes, weights, parameters = symbols(form)
    loss = reduced_loss(form, planes, weights, parameters)
    cost = {
        sp.Symbol(c, nonnegative=True): cost_loss([planes[x] for x in xs], weights[c]) for c, xs in form.costs.items()
    }
    for balance in model.conserved():
        rate = sp.Add(
            *(-2 * k * sum(s * sp.diff(loss, s) for s in planes[x][:2]) for x, k in balance.coefficients.items())
        )
        combination = " ".join(
            f"{'+' if k > 0 else '-'} {abs(k) if abs(k) != 1 else ''}|{x}|^2" for x, k in balance.coefficients.items()
        )
        page.check(
            rf"$\frac{{d}}{{dt}}({combination.removeprefix('+ ')}) = {sp.latex(balance.rate)}$",
            rate,
            balance.rate.subs(cost),
        )


def build() -> Page:
    page = Page(
        __file__,
        "The exact reduction: two numbers a vector",
        [
            "A mechanism is a rank-one tensor with a rank-one target, its loss the weighted square of the difference: "
            r"$L_m = \frac{w_m}{2}|x^*\otimes y^*\otimes\cdots - x\otimes y\otimes\cdots|^2$.",
            r"A cost is the weighted square of a product: $C = \frac{w_c}{2}|x\otimes y\otimes\cdots|^2$.",
            "The loss $L$ is a differentiable function of the mechanisms' losses, the costs and parameters.",
            "Targets do not change. Training is gradient flow, or gradient descent with any step size, from any start.",
        ],
    )
    page.section("Statement")
    page.text(
        r"""All that happens to a vector happens in the plane of its target and its initial value. In that plane it
        has two Cartesian coordinates, its overlap $u$ with the unit target and its residual $v$, and the whole
        dynamics, of flow and of descent, is that of $(u, v)$ under the gradient of the reduced loss. The paper's
        model of 220 entries is a system of eight numbers, without approximation."""
    )
    from_tensors(page)
    extra = Model(
        mechanisms={"one": "abc", "two": "dbc", "three": "ecc"},
        costs={"clash": "ad", "decay": "e"},
        loss=lambda one, two, three, clash, decay, *, mu=0.1: one * two / (1 + three) + clash + mu * decay,
        dims=dict.fromkeys("abcde", 3),
    )
    invariant_plane(page, [coopetition(), induction(), extra])
    arbitrary_loss(page)
    without_cancellation(page)
    clamped_head(page)
    balances(page, coopetition())
    page.section("What it predicts, and its limits")
    page.text(
        """Descent on eight numbers gives the paper's iteration counts to the digit (`tests/test_paper.py`), and
        agrees with descent on all entries to 1e-9 for random models (`tests/test_descent.py`). Noise in the gradient
        and sampled tensor entries have components outside of the plane (`toymodel.descend_vectors` simulates both).
        Noise leaves the gradient right in the mean; sampled terms are unbiased, but the gradient of a loss that is
        nonlinear in one of them is not. [What both do](reduction_extended.md) is another page."""
    )
    page.section("What is new and what is textbook")
    page.text(
        """That products of weights keep balanced norms is known (Du et al. 2018, arXiv 1806.00900; Arora et al. 2018,
        1802.06509), and that deep linear networks move in few dimensions (Saxe et al. 2014, 1312.6120); Musat et al.
        (2607.11875) find invariant low-dimensional dynamics in transformers. New here: two numbers a vector are
        exact for any function of such losses, for descent with any step as for flow, with costs and clamped entries."""
    )
    return page


if __name__ == "__main__":
    build().write()
