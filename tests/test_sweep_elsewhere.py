"""Sweeps that are computed elsewhere or started from a command line: the same bytes, and errors in one line."""

import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

import toymodel as tm
from toymodel.cli import app
from toymodel.sweeps import plots

pytestmark = pytest.mark.slow

MODEL = tm.coopetition()
OVER = {"alpha": tm.log(1e-2, 1, 6), "mu_icl": tm.log(1e-2, 1, 5)}
ARGUMENTS = dict(over=OVER, seeds=range(2), steps=200, chunk=10)


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    path = tmp_path_factory.mktemp("whole") / "whole.zarr"
    tm.sweep(MODEL, store=path, **ARGUMENTS)
    return path


def test_two_workers_of_a_local_cluster_give_the_same_bytes(whole, tmp_path):
    from distributed import Client, LocalCluster

    with (
        LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None, host="127.0.0.1") as cluster,
        Client(cluster) as client,
    ):
        tm.sweep(MODEL, store=tmp_path / "client.zarr", client=client, **ARGUMENTS)
        tm.sweep(MODEL, store=tmp_path / "address.zarr", client=cluster.scheduler_address, **ARGUMENTS)
    assert contents(tmp_path / "client.zarr") == contents(tmp_path / "address.zarr") == contents(whole)


def test_no_scheduler_at_the_address_is_one_clear_error(monkeypatch):
    import distributed

    def refuse(*_, **__):
        raise OSError("timed out")

    monkeypatch.setattr(distributed, "Client", refuse)
    with pytest.raises(OSError, match="no Dask scheduler answers at tcp://127"):
        tm.sweep(MODEL, client="tcp://127.0.0.1:1", **ARGUMENTS)


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "toymodel.cli", *arguments]


GIVEN = ("sweep", "--over", "alpha=log(1e-2, 1, 6)", "--over", "mu_icl=log(1e-2, 1, 5)", "--seeds", "0:2")


def test_the_command_line_writes_the_same_bytes_and_says_nothing_but_the_result(whole, tmp_path):
    done = subprocess.run(
        command(*GIVEN, "--steps", "200", "--chunk", "10", "--store", "a.zarr"),
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    assert contents(tmp_path / "a.zarr") == contents(whole)
    plot = ("plot", "a.zarr", "--x", "alpha", "--y", "mu_icl", "--kind", "phase", "--out", "phase.png")
    again = subprocess.run(command(*plot), cwd=tmp_path, capture_output=True, text=True)
    assert again.returncode == 0, again.stderr
    assert (tmp_path / "phase.png").stat().st_size > 5000
    with pytest.raises(ValueError, match="lifetime has no value in any of the 60 runs"):
        plots.plot(tm.open_sweep(whole), tmp_path / "none.png", "alpha", "mu_icl", "heat", "lifetime", "icl")
    assert not (tmp_path / "none.png").exists()


def test_the_line_of_theory_goes_through_the_shortest_lifetimes():
    over = dict(alpha=tm.log(1e-3, 1, 16), mu_icl=[0.01, 0.02])
    runs = tm.sweep(MODEL, over, steps=100_000, start="aligned", fixed={"scale": 0.3})
    ((alpha, mu),) = plots.theory_lines(runs, "alpha", "mu_icl").values()
    lifetime = runs.lifetime.sel(mechanism="icl").where(~runs.lasts.sel(mechanism="icl"))
    np.testing.assert_allclose(np.log(lifetime.idxmin("alpha")), np.log(alpha), atol=np.log(1000) / 15)  # one point
    assert mu.tolist() == [0.01, 0.02]
    ((swapped, _),) = plots.theory_lines(runs, "mu_icl", "alpha").values()
    assert swapped.tolist() == mu.tolist()
    assert plots.theory_lines(runs, "alpha", "seed") == {}


def test_a_limit_on_file_size_is_one_line_on_the_command_line(tmp_path):
    """A real failing write: the system refuses files of more than half a kilobyte."""
    limited = ["sh", "-c", 'ulimit -f 1; exec "$@"', "sh", *command(*GIVEN, "--store", "a.zarr")]
    done = subprocess.run(limited, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stderr.startswith("toymodel: ") and "cannot write a.zarr: File too large" in done.stderr
    assert done.stderr.count("\n") == 1
    assert not list(tmp_path.iterdir())


def test_commands_refuse_in_one_line(tmp_path):
    from typer.testing import CliRunner

    for arguments, message in (
        (["sweep", "--over", "alpha=log(1, 2, 3)"], "give a folder for the result"),
        (["sweep", "--over", "alpha"], "expected NAME=VALUE"),
        (["sweep", "--set", "alpha=x", "--store", "a"], "--set alpha needs a number"),
        (["sweep", "--model", "x", "--store", "a"], "preset must be one of"),
        (["sweep", "a.toml", "--dims", "4,4,4,8", "--store", "a"], "that of a.toml is changed in it"),
        (["plot", "a.zarr", "--x", "alpha", "--out", "a.txt"], "out must end in"),
        (["plot", str(tmp_path / "a.zarr"), "--x", "alpha", "--out", "a.png"], "no such store"),
    ):
        result = CliRunner().invoke(app, arguments)
        assert isinstance(result.exception, (ValueError, OSError)), result.output
        assert message in str(result.exception)


def test_memory_is_bounded_by_the_chunk():
    """Only as many chunks are asked of workers as keep them busy."""
    asked = []

    class Client:
        def scatter(self, declared, broadcast):
            return declared

        def scheduler_info(self):
            return {"workers": {"one": {}}}

        def submit(self, function, *arguments, pure):
            asked.append(arguments[1])
            raise RuntimeError("enough")

    before = time.time()
    with pytest.raises(RuntimeError, match="enough"):
        tm.sweep(MODEL, client=Client(), **ARGUMENTS)
    assert asked == [0] and time.time() - before < 5
