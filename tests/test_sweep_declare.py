"""A sweep is the same object from Python, TOML and the command line; what cannot be run is refused with its name."""

import numpy as np
import pytest
import xarray as xr

import toymodel as tm
from toymodel.sweeps.axes import axis_of, seeds_of
from toymodel.sweeps.cli import declared_by, model_named
from toymodel.sweeps.grid import Grid, _box

MODEL = tm.coopetition()
TOML = """
steps = 500
seeds = "0:4"
store = "alpha-d.zarr"
interventions = ['Clamp("b", overlap=2, residual=0, at=10)', "Change(until=t_switch, alpha=0)"]

[model]
preset = "coopetition"
mu_icl = 0.2

[over]
alpha = "log(1e-3, 1, 5)"
dim_d = [20, 160]
t_switch = [0.0, 100.0]
intervention = {full = "", blocked = 'Clamp("d", overlap=0)'}

[fixed]
scale = 0.5
"""


def in_python():
    return tm.Sweep(
        tm.coopetition(mu_icl=0.2),
        over=dict(
            alpha=tm.log(1e-3, 1, 5),
            dim_d=[20, 160],
            t_switch=[0, 100],
            intervention={"full": "", "blocked": 'Clamp("d", overlap=0)'},
        ),
        seeds=range(4),
        steps=500,
        interventions=[tm.Clamp("b", overlap=2, residual=0, at=10), "Change(until=t_switch, alpha=0)"],
        fixed={"scale": 0.5},
    )


def test_python_toml_and_command_line_declare_the_same_object(tmp_path):
    (tmp_path / "sweep.toml").write_text(TOML)
    from_toml, store = tm.Sweep.from_toml(tmp_path / "sweep.toml")
    (tmp_path / "model.json").write_text(tm.coopetition(mu_icl=0.2).to_json())
    given = dict(
        model=model_named(str(tmp_path / "model.json")),
        over=dict(
            alpha="log(1e-3, 1, 5)",
            dim_d="[20, 160]",
            t_switch="[0, 100]",
            intervention="{'full': '', 'blocked': 'Clamp(\"d\", overlap=0)'}",
        ),
        seeds="0:4",
        steps=500,
        interventions=['Clamp("b", overlap=2, residual=0, at=10)', "Change(until=t_switch, alpha=0)"],
        fixed={"scale": 0.5},
    )
    from_command_line, _ = declared_by(None, given)
    assert in_python() == from_toml == from_command_line
    assert len({in_python(), from_toml, from_command_line}) == 1
    assert store == "alpha-d.zarr"
    changed, _ = declared_by(tmp_path / "sweep.toml", {"steps": 100_000, "over": {"dim_d": "[40]"}})
    assert changed != from_toml
    assert changed.steps == 100_000 and changed.over["dim_d"].values == (40.0,)
    assert changed.chunk == tm.Sweep(MODEL, {"alpha": [0.1]}, steps=100_000).chunk  # not that of 500 steps


@pytest.mark.parametrize(
    ("over", "message"),
    [
        ({"beta": [1.0]}, "cannot vary or fix 'beta'; allowed are mu_icl, mu_ciwl, alpha, lr"),
        ({"alpha": [-0.1]}, "alpha must be >= 0 and finite, got -0.1"),
        ({"alpha": [0.1, 0.1]}, "alpha has a value twice, 0.1"),
        ({"alpha": []}, "alpha has no values"),
        ({"alpha": 0.1}, "alpha must be log"),
        ({"alpha": "lag(1, 2, 3)"}, "alpha must be like 'log"),
        ({"alpha": "log(1, 2"}, "alpha must be like 'log"),
        ({"alpha": tm.log(1e-3, 1)}, "alpha: log\\(0.001, 1\\) is a range"),
        ({"alpha": ["a"]}, "alpha must be a number"),
        ({"alpha": ["a", 1]}, "alpha mixes numbers and text"),
        ({"dim_d": [2.5]}, "dim_d must be a whole number >= 1, got 2.5"),
        ({"dim_z": [2]}, "cannot vary or fix 'dim_z'"),
        ({"lr": [0.0]}, "lr must be > 0"),
        ({"integrator": ["euler"]}, "integrator must be one of"),
        ({"intervention": ["full"]}, "cases \\(label -> text\\) are for intervention"),
        ({"intervention": {"a": "Clomp('d')"}}, "an intervention must be like"),
        ({"intervention": {"a": "Change(until=t, alpha=0)"}, "tt": [1.0]}, "cannot vary or fix 'tt'"),
    ],
)
def test_bad_grids_are_refused_by_name(over, message):
    with pytest.raises(ValueError, match=message):
        tm.Sweep(MODEL, over)


@pytest.mark.parametrize(
    ("others", "message"),
    [
        ({"seeds": []}, "seeds must be different whole numbers"),
        ({"seeds": "a:b"}, "seeds must be a whole number, a list"),
        ({"seeds": [1, 1]}, "seeds must be different"),
        ({"steps": 0}, "steps must be a whole number >= 1, got 0"),
        ({"start": "cold"}, "start must be one of"),
        ({"lr": -1.0}, "lr must be > 0"),
        ({"stop_below": 0.0}, "stop_below must be > 0"),
        ({"rtol": 2.0}, "rtol must be within"),
        ({"chunk": 0}, "chunk must be a whole number"),
        ({"fixed": {"alpha": 1.0}}, "alpha is both varied and fixed"),
        ({"fixed": {"gamma": 1.0}}, "cannot vary or fix 'gamma'"),
        ({"integrator": "flow", "over": {"lr": [0.1, 0.2]}}, "a varied lr is for"),
        ({"design": "samples(0)"}, "count must be a whole number"),
        ({"design": "grid(3)"}, "design must be like"),
        ({"design": tm.samples(4), "over": {}}, "at least one range"),
    ],
)
def test_bad_settings_are_refused_by_name(others, message):
    with pytest.raises(ValueError, match=message):
        tm.Sweep(MODEL, **{"over": {"alpha": [0.1]}, **others})


def test_a_toml_file_that_is_wrong_is_refused(tmp_path):
    path = tmp_path / "a.toml"
    for text, message in (
        ("steps = ", "is not TOML"),
        ("stepz = 1", "unknown entry 'stepz'"),
        ('model = "x"', "preset"),
    ):
        path.write_text(text)
        with pytest.raises(ValueError, match=message):
            tm.Sweep.from_toml(path)


def test_axes_read_as_written():
    assert axis_of("alpha", "log(1e-3, 1, 7)") == tm.log(1e-3, 1, 7)
    assert axis_of("alpha", "linear(0, 1, 3)").points("alpha").tolist() == [0.0, 0.5, 1.0]
    assert axis_of("alpha", "[1, 2]") == axis_of("alpha", np.array([1.0, 2.0]))
    assert axis_of("dim_d", "log(5, 8, 30)").points("dim_d").tolist() == [5.0, 6.0, 7.0, 8.0]
    assert axis_of("alpha", str(tm.log(1e-3, 1, 7))) == tm.log(1e-3, 1, 7)
    assert seeds_of("1,5,9") == (1, 5, 9)
    for wrong in ((1, 1), (0, 1), (2, 1)):
        with pytest.raises(ValueError, match="needs 0 < low < high"):
            tm.log(*wrong)


def test_axes_hold_the_shortest_float_within_an_ulp():
    """So that a value is found by the number that one would write; the ends are those that were given."""
    for axis in (tm.linear(0.1, 0.5, 5), tm.linear(0, 1, 101), tm.linear(-0.3, 0.3, 7), tm.log(1e-3, 1, 7)):
        values = axis.points("alpha")
        spaced = (np.linspace if axis.kind == "linear" else np.geomspace)(axis.low, axis.high, axis.count)
        assert (abs(values - spaced) <= np.spacing(abs(spaced))).all()
        assert (values[0], values[-1]) == (axis.low, axis.high)
    assert tm.linear(0.1, 0.5, 5).points("alpha").tolist() == [0.1, 0.2, 0.3, 0.4, 0.5]
    assert [f"{x:g}" for x in tm.linear(0, 1, 101).points("x")] == [
        repr(x).removesuffix(".0") for x in tm.linear(0, 1, 101).points("x").tolist()
    ]
    assert tm.log(1e-3, 1, 4).points("alpha").tolist() == [0.001, 0.01, 0.1, 1.0]
    assert tm.linear(0.1 + 0.2, 0.5, 2).points("alpha")[0] == 0.1 + 0.2
    swept = tm.sweep(MODEL, {"alpha": tm.linear(0.1, 0.5, 5)}, 3, 5)
    assert swept.sel(alpha=0.3).sizes == swept.isel(alpha=0).sizes


def test_numbers_of_numpy_are_those_of_python():
    numbers = dict(
        steps=np.int16(50), lr=np.float32(0.5), chunk=np.uint8(7), rtol=np.float32(0.5), stop_below=np.float64(1e-6)
    )
    plain = {name: value.item() for name, value in numbers.items()}
    over = {"alpha": np.array([0.25, 0.5], np.float32), "dim_d": [np.int8(20), np.int64(160)]}
    left = tm.Sweep(MODEL, over, np.int64(3), fixed={"scale": np.float16(0.5)}, **numbers)
    right = tm.Sweep(MODEL, {"alpha": [0.25, 0.5], "dim_d": [20, 160]}, 3, fixed={"scale": 0.5}, **plain)
    assert left == right and hash(left) == hash(right)


def test_nothing_to_vary_but_seeds(tmp_path):
    here = tm.sweep(MODEL, {}, range(3), np.int16(20))
    stored = tm.sweep(MODEL, {}, range(3), 20, store=tmp_path / "a.zarr")
    xr.testing.assert_identical(stored.load(), here)
    tm.sweep(MODEL, {}, range(3), 20, store=tmp_path / "a.zarr")


@pytest.mark.parametrize("method", ["sobol", "halton", "latin", "random"])
def test_designs_fill_their_ranges(method):
    sweep = tm.Sweep(
        MODEL, {"alpha": tm.log(1e-3, 1), "dim_d": tm.linear(5, 200)}, design=tm.samples(200, method, seed=3)
    )
    values = Grid.of(sweep).values((slice(0, 200),))
    alpha, d = values["alpha"], values["dim_d"]
    assert alpha.min() >= 1e-3 and alpha.max() <= 1 and abs(np.log10(alpha).mean() + 1.5) < 0.15
    assert (d == d.round()).all() and d.min() >= 5 and d.max() <= 200 and abs(d.mean() - 102.5) < 12


@pytest.mark.parametrize("shape", [(5,), (3, 4, 5), (7, 1, 9), (2, 3)])
@pytest.mark.parametrize("runs", [1, 4, 7, 20, 1000])
def test_chunks_are_boxes_of_consecutive_runs(shape, runs):
    grid = Grid(shape, _box(shape, runs), tuple("abc"[: len(shape)]), {})
    number = np.arange(grid.runs).reshape(shape)
    parts = [number[grid.box(chunk)].ravel() for chunk in grid.chunks]
    np.testing.assert_array_equal(np.concatenate(parts), np.arange(grid.runs))
    assert max(map(len, parts)) <= runs


def test_every_kind_of_value_reaches_the_run_that_it_is_for():
    """Each run of a sweep over everything equals the run that is made by hand with the library's own pieces."""
    over = {
        "dim_d": [40, 160],
        "scale_a": [1.0, 0.5],
        "target_scale": [1.0, 1.2],
        "lr": [1.0, 0.5],
        "mu_ciwl": [0.0, 0.01],
        "intervention": {"full": "", "blocked": 'Clamp("d", overlap=0, residual=0)', "late": "Freeze('bc', at=t0)"},
        "t0": [40.0, 100.0],
    }
    swept = tm.sweep(MODEL, over, seeds=[3, 5], steps=200, start="random", fixed={"norm_b": 3.0})
    rng = np.random.default_rng(0)
    for _ in range(12):
        at = {name: rng.integers(swept.sizes[name]) for name in (*over, "seed")}
        one = swept.isel(at)
        model = tm.coopetition(dims=(20, 20, 20, int(one.dim_d)))
        start = tm.random_start(model, int(one.seed))
        factor = xr.DataArray([float(one.scale_a), 1, 1, 1], dims="vector")
        norm_b = np.hypot(start.overlap, start.residual).sel(vector="b")
        factor[1] = 3.0 / norm_b
        start["overlap"], start["residual"] = start.overlap * factor, start.residual * factor
        start["target_norm"] = start.target_norm * float(one.target_scale)
        acts = {
            "full": [],
            "blocked": [tm.Clamp("d", overlap=0, residual=0)],
            "late": [tm.Freeze("bc", at=float(one.t0))],
        }[str(one.intervention.values)]
        run = tm.descend(model, start, 200, lr=float(one.lr), mu_ciwl=float(one.mu_ciwl), interventions=acts)
        expected = tm.measure(run)
        np.testing.assert_allclose(one["minimum"], expected["minimum"], rtol=1e-9)
        np.testing.assert_array_equal(one["emergence"], expected["emergence"])
        assert str(one["phase"].values) == str(expected["phase"].values)


@pytest.mark.parametrize(("lr", "at"), [(2.0, 300.0), (0.5, 150.0), (0.5, 60.0)])
def test_an_intervention_acts_until_the_end_of_each_run(lr, at):
    """Whatever its step size: the end of a run is steps x the step size of this run, varied or fixed."""
    act = tm.Clamp("d", overlap=0, residual=0, at=at)
    acts = [act] if at <= 200 * lr else []  # after the end it does nothing
    alone = tm.measure(tm.descend(MODEL, tm.paper_start(MODEL, 3), 200, lr=lr, interventions=acts))
    varied = tm.sweep(MODEL, {"lr": [1.0, lr]}, 3, 200, interventions=[act]).sel(lr=lr)
    fixed = tm.sweep(MODEL, {"alpha": [0.1]}, 3, 200, interventions=[act], fixed={"lr": lr}).isel(alpha=0)
    for swept in (varied, fixed):
        np.testing.assert_allclose(swept["final"], alone["final"], rtol=1e-9)


def test_a_fixed_step_size_is_that_of_the_times_of_trajectories_and_of_the_end_of_a_flow():
    kept = tm.sweep(MODEL, {"alpha": [0.1]}, 3, 200, fixed={"lr": 0.5}, every=100)
    assert kept["time"].values.tolist() == [0.0, 50.0, 100.0]
    flow = tm.sweep(MODEL, {"alpha": [0.1]}, 3, 200, integrator="flow", fixed={"lr": 0.5})
    xr.testing.assert_equal(flow, tm.sweep(MODEL, {"alpha": [0.1]}, 3, 100, integrator="flow"))


def test_labelled_values_of_interventions_are_looked_up_at_the_runs():
    held = xr.DataArray([0.0, 4.0], dims="alpha", coords={"alpha": [0.1, 0.2]})
    clamp = tm.Clamp("d", overlap=held, residual=0)
    swept = tm.sweep(MODEL, {"mu_icl": [0.1, 0.3], "alpha": [0.1, 0.2]}, seeds=3, steps=300, interventions=[clamp])
    for i in range(2):
        alone = tm.Clamp("d", overlap=float(held[i]), residual=0)
        one = tm.sweep(MODEL, {"mu_icl": [0.1, 0.3]}, 3, 300, fixed={"alpha": 0.1 * (i + 1)}, interventions=[alone])
        np.testing.assert_array_equal(swept["minimum"].isel(alpha=i), one["minimum"])
    other = tm.Clamp("d", overlap=held.rename(alpha="beta"), residual=0)
    with pytest.raises(ValueError, match="dimension 'beta', not of this sweep"):
        tm.sweep(MODEL, {"alpha": [0.1, 0.2]}, 3, 300, interventions=[other])


def test_another_loss_as_text_and_a_model_of_ones_own():
    swept = tm.sweep(MODEL, {"k": [0.5, 1.0]}, 3, 300, interventions="Change(loss='ciwl + k * icl', k=k)")
    model = tm.Model.from_expression(
        "ciwl + k * icl", MODEL.mechanisms, MODEL.dims, costs=MODEL.costs, parameters={"k": 1.0}
    )
    own = tm.sweep(model, {"k": [0.5, 1.0]}, 3, 300)
    np.testing.assert_allclose(swept["minimum"], own["minimum"], rtol=1e-12)
    with pytest.raises(ValueError, match="unknown name 'q'"):
        tm.sweep(MODEL, {"k": [0.5, 1.0]}, 3, 300, interventions="Change(loss='ciwl + q * icl', alpha=k)")


def test_trajectories_are_kept_if_asked_for():
    swept = tm.sweep(MODEL, {"alpha": [0.1, 0.2, 0.3]}, seeds=range(2), steps=250, every=100, chunk=2)
    runs = tm.descend(MODEL, tm.paper_start(MODEL, range(2)), 250, every=100, alpha=[0.1, 0.2, 0.3])
    assert swept["time"].values.tolist() == [0, 100, 200, 250]
    for name in ("loss", "loss_icl", "cost", "overlap"):
        np.testing.assert_allclose(swept[name], runs[name].transpose(*swept[name].dims), rtol=1e-12)


@pytest.mark.slow
def test_equal_numbers_of_entries_are_taken_once_and_it_is_said():
    with pytest.warns(UserWarning, match=r"dim_d: log\(5.0, 20.0, 100\) has 16 different whole numbers"):
        found = tm.sweep(MODEL, {"dim_d": tm.log(5, 20, 100)}, steps=2)
    assert found.dim_d.dtype.kind == "i" and found.dim_d.values.tolist() == list(range(5, 21))


@pytest.mark.parametrize(
    ("given", "chunk"),
    [
        ({"steps": 16_000}, 16_384),
        ({"steps": 100_000}, 2048),
        ({"steps": 100}, 16_384),
        ({"steps": 10_000_000}, 256),
        ({"steps": 16_000, "integrator": "flow"}, 1024),
        ({"steps": 16_000, "every": 100}, 512),
        ({"chunk": 7}, 7),
    ],
)
def test_chunks_follow_from_the_work_in_a_run(given, chunk):
    assert tm.Sweep(MODEL, {"alpha": [0.1, 0.2]}, **given).chunk == chunk
