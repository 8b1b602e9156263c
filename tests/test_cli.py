"""The `toymodel` command, called as a user calls it: what it prints, what it writes, how it refuses."""

import inspect
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

import toymodel as tm
from toymodel import cli, presets
from toymodel.sweeps import cli as sweeps_cli


def called(monkeypatch, capsys, *arguments) -> tuple[int, str, str]:
    """Exit status and the two outputs of `toymodel ARGUMENTS`."""
    monkeypatch.setattr("sys.argv", ["toymodel", *map(str, arguments)])
    try:
        cli.main()
        status = 0
    except SystemExit as stop:
        status = int(stop.code or 0)
    out = capsys.readouterr()
    return status, out.out, out.err


def intervene(*texts: str) -> list:
    return [part for text in texts for part in ("--intervene", text)]


def test_run_writes_what_descend_returns(monkeypatch, capsys, tmp_path):
    file, plot = tmp_path / "run.nc", tmp_path / "run.png"
    given = ["--seed", 7, "--set", "alpha=0.2", "--clamp", "d=0,0.5@20", "--steps", 50, "--every", 10]
    status, out, err = called(monkeypatch, capsys, "run", *given, "--out", file, "--plot", plot)
    assert status == 0, err
    model = tm.coopetition()
    acts = [tm.Clamp("d", overlap=0, residual=0.5, at=20)]
    expected = tm.descend(model, tm.paper_start(model, 7), 50, every=10, alpha=0.2, interventions=acts)
    np.testing.assert_array_equal(tm.load(file).loss, expected.loss)
    assert plot.read_bytes()[:4] == b"\x89PNG"
    assert "emergence" in out and f"wrote {file}" in out


def test_info_says_how_a_file_was_made(monkeypatch, capsys, tmp_path):
    file = tmp_path / "run.nc"
    called(
        monkeypatch, capsys, "run", "--steps", 20, *intervene('Block("ciwl", "bc")', 'Freeze("a", at=5)'), "--out", file
    )
    status, out, _ = called(monkeypatch, capsys, "info", file)
    assert status == 0
    for piece in ("alpha*cost", "Block(", "Freeze(", "toymodel_version", "emergence"):
        assert piece in out, piece


def test_any_intervention_and_dimensions_from_the_command_line(monkeypatch, capsys, tmp_path):
    """They do what they do in Python; the start is made with what a clamp of first entries needs."""
    file = tmp_path / "run.nc"
    given = intervene('Clamp("c", entries=2, at=0.5)', 'Change(until=0.9, loss="ciwl * (1 + mu_icl)")')
    given += ["--dims", "2,3,4,5", "--first-below", 0.5, "--steps", 20, "--lr", 0.1, "--out", file]
    status, out, err = called(monkeypatch, capsys, "run", *given)
    assert status == 0, err
    model = tm.coopetition(dims=(2, 3, 4, 5))
    change = tm.Change(until=0.9, loss=lambda icl, ciwl, cost, *, mu_icl=0.1: ciwl * (1 + mu_icl))
    acts = [tm.Clamp("c", entries=2, at=0.5), change]
    start = tm.paper_start(model, 7, heads={"c": 2})
    expected = tm.descend(model, start, 20, lr=0.1, first_below=0.5, interventions=acts)
    np.testing.assert_array_equal(tm.load(file).loss, expected.loss)
    assert f"loss below 0.5 at time {float(expected.stopped):g}" in out


def test_another_loss_from_the_command_line(monkeypatch, capsys, tmp_path):
    file = tmp_path / "run.nc"
    given = ["--loss", "icl + 0.5 * ciwl + beta * cost", "--set", "beta=0.3", "--steps", 5, "--out", file]
    status, _, err = called(monkeypatch, capsys, "run", *given)
    assert status == 0, err
    runs = tm.load(file)
    np.testing.assert_allclose(runs.loss, runs.loss_icl + 0.5 * runs.loss_ciwl + 0.3 * runs.cost, rtol=1e-12)


def test_the_long_pathway_starts_small(monkeypatch, capsys, tmp_path):
    file = tmp_path / "run.nc"
    status, _, err = called(monkeypatch, capsys, "run", "--preset", "long_pathway", "--steps", 5, "--out", file)
    assert status == 0, err
    overlap = abs(tm.load(file).overlap.isel(time=0))
    assert (overlap.sel(vector=list("abce")) < 0.1).all()


@pytest.mark.slow
def test_flow_from_the_command_line(monkeypatch, capsys, tmp_path):
    file = tmp_path / "run.nc"
    status, _, err = called(
        monkeypatch, capsys, "run", "--preset", "induction", "--integrator", "flow", "--time", 10, "--out", file
    )
    assert status == 0, err
    runs = tm.load(file)
    assert runs.attrs["integrator"] == "flow (rosenbrock)" and float(runs.time[-1]) == 10


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["run", "--preset", "paper"], "preset must be one of"),
        (["run", "--integrator", "euler"], "integrator must be descent or flow, got 'euler'"),
        (["run", "--set", "alpha"], "--set alpha needs a number, got ''"),
        (["run", "--set", "alpha=-1", "--steps", "5"], "alpha must be >= 0 and finite, got -1"),
        (["run", "--set", "beta=1", "--steps", "5"], "parameters has the unknown name 'beta'"),
        (["run", "--clamp", "z", "--steps", "5"], r"the vectors of the model are ['a', 'b', 'c', 'd']"),
        (["run", "--clamp", "d=1,2,3"], "--clamp takes an overlap and a residual at most"),
        (["run", "--clamp", "d=x"], "--clamp d needs a number, got 'x'"),
        (["run", "--clamp", "a@soon"], "the time after @ needs a number, got 'soon'"),
        (["run", "--out", "/no/such/folder/run.nc"], "the folder of /no/such/folder/run.nc does not exist"),
        (["run", "--plot", "run.gif"], "plot must end in .png or .pdf or .svg, got 'run.gif'"),
        (["run", "--out", "run.txt"], "out must end in .nc, got 'run.txt'"),
        (["run", "--out", "."], "out must end in .nc, got ''"),
        (["run", "--loss", "icl +", "--steps", "5"], "not an expression"),
        (
            ["run", "--loss", "icl + ciwl + g * cost"],
            "the loss has the parameter 'g': give it a value with --set g=VALUE",
        ),
        (["run", "--dims", "20,20"], "dims must be 4 numbers, those of a, b, c, d, got [20, 20]"),
        (["run", "--dims", "20,20,20,x"], "--dims must be whole numbers, such as 20,20,20,160, got '20,20,20,x'"),
        (["run", "--intervene", "Hold()"], "an intervention must be like"),
        (["run", "--intervene", 'Freeze("z")', "--steps", "5"], "the vectors of the model are"),
        (["run", "--integrator", "flow", "--lr", "0.1"], "--lr is for descent; a flow goes on until --time"),
        (["run", "--time", "10"], "--time is for --integrator flow"),
        (["figures", "-j0"], "jobs must be a whole number >= 1, got 0"),
        (["info", "gone.nc"], "no such file: gone.nc"),
        (["figures", "nothing"], "there is no figure 'nothing'; there are"),
    ],
)
def test_wrong_inputs_end_in_one_line(monkeypatch, capsys, arguments, says):
    status, _, err = called(monkeypatch, capsys, *arguments)
    assert status == 2
    assert says in err and err.startswith("toymodel: ") and err.count("\n") == 1


@pytest.mark.parametrize("command", [[], ["run"], ["info"], ["figures"], ["sweep"], ["plot"]])
def test_help_says_what_each_command_does(command):
    result = CliRunner().invoke(cli.app, [*command, "--help"])
    assert result.exit_code == 0 and "Usage" in result.output


def test_help_shows_what_stands_in_brackets():
    text = CliRunner().invoke(cli.app, ["run", "--help"]).output
    assert "[@TIME]" in text and "[default: 16000]" in text


def test_an_interruption_ends_in_one_line(monkeypatch, capsys):
    def interrupted(*_arguments, **_options):
        raise KeyboardInterrupt

    monkeypatch.setattr(cli.tm, "descend", interrupted)
    assert called(monkeypatch, capsys, "run") == (130, "", "toymodel: interrupted\n")


@pytest.mark.parametrize(
    "arguments",
    [
        ["--help"],
        ["--version"],
        ["run", "--help"],
        ["sweep", "--help"],
        ["run", "--sed", "7"],
        ["run", "--preset", "x"],
    ],
    ids=" ".join,
)
def test_help_and_typos_do_not_wait_for_what_computes(arguments):
    """They import nothing that takes long: `toymodel --help` took 1.8 s with these."""
    code = (
        "import sys; from toymodel import cli; sys.argv = ['toymodel', *sys.argv[1:]]\n"
        "try: cli.main()\n"
        "except SystemExit: pass\n"
        "print('imported', *{'numpy', 'xarray', 'jax', 'sympy', 'numba', 'matplotlib'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, timeout=60)
    assert done.stdout.splitlines()[-1] == "imported", done.stdout + done.stderr


def test_the_presets_of_the_command_are_those_of_the_package():
    made = {name for name, function in inspect.getmembers(presets, inspect.isfunction) if not name.startswith("_")}
    made = {name for name in made if inspect.signature(getattr(presets, name)).return_annotation in ("Model", tm.Model)}
    assert set(sweeps_cli.PRESETS) == made


def test_run_and_sweep_have_one_vocabulary(monkeypatch, capsys, tmp_path):
    """--model, --dims, --loss, --set and --seeds mean the same in both; the older names go on."""
    monkeypatch.chdir(tmp_path)
    tm_file = tmp_path / "mine.json"
    tm_file.write_text(tm.induction((4, 4, 4)).to_json())
    for model in (["--model", "coopetition", "--dims", "2,3,4,5"], ["--preset", str(tm_file)]):
        for seeds in ("--seed", "--seeds"):
            given = [*model, seeds, 3, "--steps", 20]
            assert called(monkeypatch, capsys, "run", *given, "--out", "a.nc")[0] == 0
            status, _, err = called(monkeypatch, capsys, "sweep", *given, "--over", "lr=[1]", "--store", "a.zarr")
            assert status == 0, err
            swept = tm.open_sweep("a.zarr").sel(lr=1.0)
            final = tm.load("a.nc").isel(time=-1)
            assert float(swept.final.sel(mechanism="icl")) == float(final.loss_icl)
            assert tm.model_of(swept) == tm.model_of(final)
            shutil.rmtree("a.zarr")
    given = ["--loss", "icl + beta * ciwl", "--over", "beta=[0.1, 1]", "--steps", 5, "--store", "b.zarr"]
    status, _, err = called(monkeypatch, capsys, "sweep", *given)
    assert status == 0 and tm.open_sweep("b.zarr").sizes["beta"] == 2, err
    said = called(monkeypatch, capsys, "sweep", "--loss", "icl + gamma", "--over", "lr=[1]", "--store", "c.zarr")[2]
    assert "give it a value with --set gamma=VALUE" in said
    unquoted = ["--over", "lr=[1]", "--store", "c.zarr", "--intervene", "Clamp(d, overlap=0)"]
    assert "in quotes if it is text: 'd'" in called(monkeypatch, capsys, "sweep", *unquoted)[2]


def test_info_reads_every_file_that_is_written(monkeypatch, capsys, tmp_path):
    model = tm.coopetition(dims=(2, 2, 2, 2))
    tm.save(tm.paper_start(model, 1), tmp_path / "start.nc")
    tm.sweep(model, {"alpha": [0.1, 0.2]}, steps=5, store=tmp_path / "a.zarr")
    (tmp_path / "model.json").write_text(model.to_json())
    curves = next((Path(__file__).parent.parent / "networks").glob("*.nc"))
    says = {"start.nc": "paper_start", "a.zarr": "phases: 2 plateau", "model.json": "alpha*cost", curves: "made_of"}
    for file, piece in says.items():
        status, out, err = called(monkeypatch, capsys, "info", tmp_path / file)
        assert status == 0 and piece in out, (file, err, out)
    (tmp_path / "bad.nc").write_bytes(b"no")
    assert "is damaged or no NetCDF file" in called(monkeypatch, capsys, "info", tmp_path / "bad.nc")[2]
