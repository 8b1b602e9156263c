"""Models: declaration, identity, balances, errors."""

import inspect
import math
import pickle
import time

import numpy as np
import pytest
import sympy as sp
from hypothesis import given
from hypothesis import strategies as st

import toymodel as tm
from toymodel import names
from toymodel.reduction import reduced_loss, symbols


def three_mechanisms() -> tm.Model:
    """A third mechanism, a sum in the loss, weight decay (a cost of one vector), a vector twice in a mechanism."""
    return tm.Model(
        mechanisms={"one": "abc", "two": "dbc", "three": "ecc"},
        costs={"clash": "ad", "decay": "e"},
        loss=lambda one, two, three, clash, decay, *, mu=0.2, alpha=0.1, beta=0.01: (
            (one + mu) * two + three / 3 + alpha * clash + beta * decay
        ),
        dims=dict(a=4, b=5, c=6, d=7, e=3),
    )


def test_repr_and_latex_show_the_paper_loss():
    model = tm.coopetition()
    assert "L = (icl + mu_icl)*(ciwl + mu_ciwl) + alpha*cost" in repr(model)
    assert "(a* x b* x c* - a x b x c)^2" in repr(model)
    assert "mean" in repr(model) and "w = " not in repr(model) and "norms" not in repr(model)
    mean = r"\tfrac12\,\mathrm{mean}\,[(a^* \otimes b^* \otimes c^* - a \otimes b \otimes c)^2]"
    assert rf"L_{{\mathrm{{icl}}}} &= {mean}" in model.latex()
    assert (
        r"(L_{\mathrm{icl}} + \mu_{icl}\right) \left(L_{\mathrm{ciwl}} + \mu_{ciwl}\right) + \alpha C" in model.latex()
    )


@pytest.mark.parametrize(
    ("loss", "text"),
    [
        (lambda x, y, *, k=1: (x + k) * 2 * y / (x + y + k) - x / 3, "(x + k)*2*y/(x + y + k) - x/3"),
        (lambda x, y, *, k=1: k - (y - x) ** 1.5 + 0.05 * y * x, "k - (y - x)**1.5 + 0.05*y*x"),
    ],
)
def test_repr_shows_a_loss_in_the_order_in_which_it_was_written(loss, text):
    assert f"L = {text}\n" in repr(tm.Model({"x": "ab", "y": "b"}, loss, {"a": 2, "b": 3}))


def test_repr_and_latex_show_numbers_of_ones_own():
    model = good(weights={"icl": 1e-5}, target_norms={"b": 3.0})
    assert "icl = w/2 sum[(a* x b* - a x b)^2], w = 1e-05" in repr(model)
    assert "cost = 1/2 mean[" in repr(model) and "target norms b: 3" in repr(model)
    assert (
        r"\tfrac{w}{2}\,\mathrm{sum}\,[(a^* \otimes b^* - a \otimes b)^2],\quad w = 1.0 \cdot 10^{-5}" in model.latex()
    )


def test_equal_models_have_equal_hashes():
    """Identity is by vectors, numbers and symbolic loss, not by the function object."""
    left, right = three_mechanisms(), three_mechanisms()
    assert left == right and hash(left) == hash(right) and left.loss is not right.loss
    assert left != left.with_parameters(mu=0.3)
    assert left.with_parameters(mu=0.3).form == left.form


@pytest.mark.parametrize("model", [tm.coopetition(alpha=0.3), tm.induction(), three_mechanisms()])
def test_json_round_trip(model):
    assert tm.Model.from_json(model.to_json()) == model


EXACT = {
    "halves": lambda icl, ciwl: (icl + 1) / 2 - ciwl / 3,
    "root": lambda icl, ciwl: icl**0.5 / (ciwl + 3) ** 2,
    "sum of terms": lambda icl, ciwl: sum([icl, ciwl]) * np.float64(0.1) + np.int64(2),
    "signs": lambda icl, ciwl: -(-icl - (2 - ciwl)) * +icl,
}


@pytest.mark.parametrize("name", EXACT)
def test_a_model_comes_back_from_json_and_from_a_pickle(name):
    """The pickle's loss makes the same operations in the same order: the same bits, where the lambda cannot go."""
    model = tm.Model({"icl": "ab", "ciwl": "cb"}, EXACT[name], dict(a=2, b=3, c=4))
    assert tm.Model.from_json(model.to_json()) == model
    copy = pickle.loads(pickle.dumps(model))
    assert copy == model and copy.form == model.form and hash(copy) == hash(model) and repr(copy) == repr(model)
    draw = np.random.default_rng(0).random((2, 1000))
    np.testing.assert_array_equal(copy.loss(icl=draw[0], ciwl=draw[1]), model.loss(icl=draw[0], ciwl=draw[1]))
    assert pickle.loads(pickle.dumps(copy)) == model


@pytest.mark.parametrize(
    "text", ["icl/3 + 1/3", "icl**(1/2) * 2/7", "1/2/3 - icl**-(3/2)", "(icl + 2**-3)**2", "1e-3*icl"]
)
def test_quotients_in_a_text_are_exact_for_sympy_and_numbers_for_arrays(text):
    """Sympy's own reading of the text is the expression, Python's is the number."""
    model = tm.Model.from_expression(text, {"icl": "ab"}, {"a": 2, "b": 3})
    assert model.expression == sp.sympify(text, {"icl": sp.Symbol("icl", nonnegative=True)})
    assert tm.Model.from_json(model.to_json()) == model
    assert model.loss(icl=0.7) == pytest.approx(eval(text, {"icl": 0.7}), rel=1e-15)


def test_a_loss_of_the_largest_size_is_made_within_a_second():
    for operator in "+*":
        names = [f"p{i}" for i in range(499)]
        began = time.process_time()
        tm.Model.from_expression(
            operator.join(["icl", *names]), {"icl": "a"}, {"a": 2}, parameters=dict.fromkeys(names, 1)
        )
        assert time.process_time() - began < 2


def test_equality_is_by_value_whatever_the_order():
    """Only the order of dims, in which starts are drawn, makes another model; and compiled forms keep their order."""
    left = three_mechanisms()
    turned = tm.Model(
        mechanisms=dict(reversed(list(left.mechanisms.items()))),
        loss=left.loss,
        dims=left.dims,
        costs=dict(reversed(list(left.costs.items()))),
        parameters=dict(reversed(list(left.parameters.items()))),
        weights=dict(reversed(list(left.weights.items()))),
    )
    assert turned == left and hash(turned) == hash(left) and turned.form != left.form
    other = tm.Model(left.mechanisms, left.loss, dict(reversed(list(left.dims.items()))), left.costs)
    assert other != left


def test_default_weights_are_the_mean():
    weights = tm.coopetition().weights
    assert weights["icl"] == 1 / 8000 and weights["ciwl"] == 1 / 64_000 and weights["cost"] == 1 / 3200


def test_balances_of_the_paper_model():
    """|b|^2 - |c|^2 is conserved and d/dt(|a|^2 + |d|^2 - |b|^2) = -8 alpha C."""
    conserved, balanced = tm.coopetition().conserved()
    assert dict(conserved.coefficients) == {"b": 1, "c": -1} and conserved.conserved
    assert dict(balanced.coefficients) == {"a": 1, "b": -1, "d": 1}
    alpha, cost = (sp.Symbol(name, nonnegative=True) for name in ("alpha", "cost"))
    assert sp.expand(balanced.rate + 8 * alpha * cost) == 0


def test_an_unused_term_frees_a_balance():
    """With the cost out of the loss, its balance becomes a conservation law."""
    model = tm.coopetition()
    without = tm.Model(model.mechanisms, lambda icl, ciwl, cost: icl * ciwl, model.dims, model.costs)
    assert [b.conserved for b in without.conserved()] == [True, True]


def rank(terms: list[str], used: list[str]) -> int:
    """How many combinations of squared norms the terms change, counted by numpy."""
    return int(np.linalg.matrix_rank([[term.count(x) for x in used] for term in terms]))


LETTERS = "abcde"
TERMS = st.lists(st.text(LETTERS, min_size=1, max_size=4), min_size=1, max_size=3)


@pytest.mark.slow
@given(mechanisms=TERMS, costs=TERMS)
def test_balances_hold_for_any_model(mechanisms, costs):
    """The rate of every balance equals that of the gradient flow of the symbolic reduced loss, at a random point."""
    names = {f"m{i}": xs for i, xs in enumerate(mechanisms)}, {f"c{i}": xs for i, xs in enumerate(costs)}
    arguments = ", ".join([*names[0], *names[1]])
    loss = eval(f"lambda {arguments}: ({' * '.join(f'({m} + 1)' for m in names[0])}) + {' + '.join(names[1])}")
    used = sorted(set("".join(mechanisms + costs)))
    model = tm.Model(names[0], loss, dict.fromkeys(used, 3), names[1])
    planes, weights, parameters = symbols(model.form)
    value = reduced_loss(model.form, planes, weights, parameters)
    point = {s: sp.Rational(7 * i + 3, 5 + i) for i, s in enumerate(sorted(value.free_symbols, key=str))}
    costs_at = {
        sp.Symbol(c, nonnegative=True): weights[c] / 2 * sp.prod([planes[x].u ** 2 + planes[x].v ** 2 for x in xs])
        for c, xs in names[1].items()
    }
    slope = {x: sum(s * sp.diff(value, s) for s in planes[x][:2]).subs(point) for x in used}
    balances = model.conserved()
    assert [b.conserved for b in balances].count(True) == len(used) - rank(mechanisms + costs, used)
    assert len(balances) == len(used) - rank(mechanisms, used)
    for balance in balances:
        measured = sum(-2 * k * slope[x] for x, k in balance.coefficients.items())
        assert sp.simplify(measured - balance.rate.subs(costs_at).subs(point)) == 0


def test_no_argument_of_a_simulation_can_be_a_parameter():
    """Else its value could not be given in a call. The names are read from the source; here they are asked for."""
    for simulate in (tm.descend, tm.descend_vectors, tm.flow, tm.sweep, tm.random_start, tm.aligned_start, tm.Change):
        named = set(inspect.signature(inspect.unwrap(simulate)).parameters) - {"parameters"}
        assert named <= names.arguments(), simulate
        for name in named:
            with pytest.raises(ValueError, match=f"parameters of the loss: '{name}' cannot be a name"):
                tm.Model.from_expression(f"icl + {name}", {"icl": "ab"}, {"a": 2, "b": 3}, parameters={name: 1.0})


def test_no_variable_of_a_record_or_a_sweep_can_be_a_name():
    """What simulations return is either named after something of the model, or taken."""
    model = three_mechanisms()
    start = tm.paper_start(model, range(2), heads={"a": 2})
    runs = [
        tm.descend(model, start, 3, first_below=1.0, lr=0.01, interventions=[tm.Clamp("a", entries=2)]),
        tm.flow(model, start, 1.0, method="LSODA", events={"half": lambda seen: seen["loss"] - 0.5}),
        tm.sweep(model, {"alpha": [0.1, 0.2]}, range(2), 3, lr=0.01, every=1, stop_below=1.0),
        tm.sweep(model, {"alpha": tm.log(0.1, 0.2)}, 1, 3, lr=0.01, design=tm.samples(2)),
    ]
    for data in [start, *runs, *map(tm.measure, runs[:2]), tm.state_at(runs[0], [0.01, 0.02])]:
        for name in set(map(str, {*data.variables, *data.dims})) - {*model.parameters, *model.costs}:
            with pytest.raises(ValueError, match="cannot be a name, since it is"):
                names.check_name("a parameter", name, model.vectors, model.terms, parameter=False)


def test_no_symbol_of_the_reduced_loss_can_be_a_parameter():
    model = three_mechanisms()
    planes, weights, _ = symbols(model.form, model.vectors)
    made = {str(part) for plane in planes.values() for part in plane} | {str(w) for w in weights.values()}
    assert made <= names.of_model(model.vectors, model.terms)


def good(**changed):
    parts = dict(
        mechanisms={"icl": "ab"},
        costs={"cost": "a"},
        loss=lambda icl, cost, *, alpha=1.0: icl + alpha * cost,
        dims={"a": 2, "b": 3},
    )
    return tm.Model(**{**parts, **changed})


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: tm.coopetition(alpha=-0.1), "alpha must be >= 0 and finite, got -0.1"),
        (lambda: tm.coopetition(mu_icl=math.nan), "mu_icl must be >= 0 and finite, got nan"),
        (lambda: tm.coopetition(dims=(20, 0, 20, 160)), r"dims\['b'\] must be a whole number >= 1, got 0"),
        (lambda: good(dims={"a": 2}), r"one entry for each vector, \['a', 'b'\], got \['a'\]"),
        (lambda: good(parameters={"beta": 1}), r"parameters has the unknown name 'beta'; allowed are \['alpha'\]"),
        (lambda: good(loss=lambda icl: icl), r"one argument for each mechanism and cost, \['cost', 'icl'\]"),
        (
            lambda: good(loss=lambda icl, cost, *, mu: icl + mu),
            "parameters must have a value for 'mu', which has no default",
        ),
        (lambda: good(loss=lambda icl, cost: math.exp(icl) + cost), r"operators \+ - \* / \*\*"),
        (lambda: good(loss=lambda icl, cost: icl if icl > cost else cost), r"operators \+ - \* / \*\*"),
        (lambda: good(loss=lambda icl, cost: icl // 2 + cost), r"nothing else: got // of icl"),
        (lambda: good(loss=lambda icl, cost: icl % 2 + cost), r"nothing else: got % of icl"),
        (lambda: good(loss=lambda icl, cost: abs(icl - cost)), r"nothing else: got abs of \(icl - cost\)"),
        (lambda: good(loss=lambda icl, cost: icl / 0 + cost), "loss must be finite: it divides by zero"),
        (lambda: good(loss=lambda icl, cost: icl * math.inf + cost), "loss must be finite"),
        (
            lambda: good(loss=lambda icl, cost, *, lr=1: icl + lr * cost),
            "parameters of the loss: 'lr' cannot be a name",
        ),
        (lambda: good(mechanisms="ab"), "mechanisms must be a mapping, name -> value, got 'ab'"),
        (lambda: good(dims=(2, 3)), r"dims must be a mapping, name -> value, got \(2, 3\)"),
        (lambda: good(weights=[1]), r"weights must be a mapping, name -> value, got \[1\]"),
        (lambda: tm.coopetition(dims=(20, 20, 20)), r"dims must be 4 numbers, those of a, b, c, d, got \(20, 20, 20\)"),
        (lambda: good(loss="icl + cost"), "use Model.from_expression"),
        (lambda: good(mechanisms={}), "at least one mechanism"),
        (lambda: good(mechanisms={"loss": "ab"}), "'loss' cannot be a name"),
        (lambda: good(mechanisms={"icl": "a-b"}), "must be letters"),
        (lambda: good(weights={"icl": 0}), r"weights\['icl'\] must be > 0"),
        (lambda: good(weights={"other": 1}), "unknown name 'other'"),
        (lambda: good(target_norms={"a": -1}), r"target_norms\['a'\] must be > 0"),
        (lambda: tm.Model.from_expression("m.real", {"m": "ab"}, {"a": 2, "b": 2}), "names, numbers and"),
        (lambda: tm.Model.from_expression("m +", {"m": "ab"}, {"a": 2, "b": 2}), "not an expression"),
        (
            lambda: tm.Model.from_expression("m * k", {"m": "ab"}, {"a": 2, "b": 2}),
            "parameters must have a value for 'k'",
        ),
    ],
)
def test_wrong_models_say_what_is_wrong(make, says):
    with pytest.raises(ValueError, match=says):
        make()
