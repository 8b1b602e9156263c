"""Stores: the same measures however written, refusal of another sweep's, and one clear error when writing fails."""

import errno
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

import toymodel as tm
from toymodel import provenance
from toymodel.measures import labels_of
from toymodel.sweeps import execute as execution
from toymodel.sweeps import layout
from toymodel.sweeps import store as storage

MODEL = tm.coopetition()
OVER = {"alpha": tm.log(1e-2, 1, 6), "mu_icl": tm.log(1e-2, 1, 5)}
ARGUMENTS = dict(over=OVER, seeds=range(2), steps=200, chunk=10)


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def finished(folder: Path) -> int:
    return sum(not path.name.startswith(".") for path in (folder / layout.MARKS).iterdir())


def same_sweep(path: Path) -> xr.Dataset:
    return tm.sweep(MODEL, store=path, **ARGUMENTS)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    path = tmp_path_factory.mktemp("whole") / "whole.zarr"
    tm.sweep(MODEL, store=path, **ARGUMENTS)
    return path


def test_the_readme_call_works_as_written(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(tm, "log", lambda low, high, count: _log(low, high, 3))  # the same call on a small grid
    model = tm.coopetition()
    runs = tm.sweep(
        model,
        over=dict(alpha=tm.log(1e-3, 1, 64), mu_icl=tm.log(1e-3, 1, 64)),
        seeds=range(4),
        steps=16_000,
        store="alpha-mu.zarr",
    )
    assert dict(runs.sizes) == {"alpha": 3, "mu_icl": 3, "seed": 4, "mechanism": 2}
    assert Path("alpha-mu.zarr").is_dir()


def _log(low, high, count):
    from toymodel.sweeps.axes import log

    return log(low, high, count)


def test_a_store_holds_what_a_sweep_in_memory_returns(whole):
    stored = tm.open_sweep(whole)
    xr.testing.assert_identical(stored.load(), tm.sweep(MODEL, **ARGUMENTS))
    assert json.loads(stored.attrs["sweep"])["over"]["alpha"] == "log(0.01, 1.0, 6)"
    assert tm.model_of(stored) == MODEL


@pytest.mark.slow
def test_any_size_of_chunk_gives_the_same_measures(whole):
    for chunk in (1, 7, 60):
        other = tm.sweep(MODEL, **{**ARGUMENTS, "chunk": chunk})
        xr.testing.assert_identical(other.drop_attrs(), tm.open_sweep(whole).load().drop_attrs())


def test_a_finished_sweep_is_not_computed_again(whole, monkeypatch):
    monkeypatch.setattr(execution, "measured_chunk", lambda *_: pytest.fail("computed again"))
    before = contents(whole)
    tm.sweep(MODEL, store=whole, **ARGUMENTS)
    assert contents(whole) == before


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"steps": 300}, "steps: 200 in the store, 300 in this call"),
        ({"seeds": range(3)}, r"seeds: \[0, 1\] in the store, \[0, 1, 2\]"),
        (
            {"over": {**OVER, "mu_icl": tm.log(1e-2, 1, 7)}},
            r"log\(0.01, 1.0, 5\).* in the store, .*log\(0.01, 1.0, 7\)",
        ),
        ({"interventions": 'Clamp("d", overlap=0)'}, r"interventions: \[\] in the store, .*Clamp"),
        ({"fixed": {"mu_ciwl": 0.1}}, r"fixed: \{\} in the store"),
    ],
)
def test_a_store_of_another_sweep_is_refused_and_kept(whole, change, said):
    before = contents(whole)
    with pytest.raises(ValueError, match=f"(?s)made by another sweep.*{said}"):
        tm.sweep(MODEL, store=whole, **{**ARGUMENTS, **change})
    with pytest.raises(ValueError, match=r"(?s)made by another sweep.*model: "):
        tm.sweep(tm.coopetition(mu_ciwl=0.5), store=whole, **ARGUMENTS)
    assert contents(whole) == before


@pytest.mark.parametrize("name", storage.VERSIONS)
def test_a_store_of_another_version_is_refused(whole, monkeypatch, name):
    """Of the format, of the package, of JAX, or of the code that computes."""
    other = {**storage.attributes(tm.Sweep(MODEL, **ARGUMENTS)), name: 99}
    monkeypatch.setattr(storage, "attributes", lambda _: other)
    with pytest.raises(ValueError, match=f"made with {name} .*, this is 99"):
        same_sweep(whole)


def test_a_folder_that_is_no_store_is_refused_and_kept(tmp_path):
    folder = tmp_path / "thesis.zarr"
    folder.mkdir()
    (folder / "chapter").write_text("1")
    for call in (same_sweep, tm.open_sweep):
        with pytest.raises(ValueError, match="is not a store of a sweep"):
            call(folder)
    assert (folder / "chapter").read_text() == "1" and os.listdir(tmp_path) == ["thesis.zarr"]
    with pytest.raises(FileNotFoundError, match="no such store"):
        tm.open_sweep(tmp_path / "nothing.zarr")


@pytest.mark.parametrize("name", ["runs.nc", "runs", "zarr"])
def test_the_name_of_a_store_ends_in_zarr(tmp_path, name):
    with pytest.raises(ValueError, match=rf"store must be a name that ends in \.zarr, got '{name}'"):
        same_sweep(tmp_path / name)
    assert not list(tmp_path.iterdir())


def test_a_missing_folder_is_one_clear_error(tmp_path):
    with pytest.raises(OSError, match=r"cannot write .*a\.zarr: there is no folder"):
        same_sweep(tmp_path / "missing" / "a.zarr")


def test_a_folder_without_permission_is_one_clear_error(tmp_path, monkeypatch):
    """Also where the tests run as root, whom permissions do not stop."""
    (tmp_path / "closed").mkdir(mode=0o500)
    if os.access(tmp_path / "closed", os.W_OK):

        def refuse(*_, **__):
            raise PermissionError(errno.EACCES, "Permission denied")

        monkeypatch.setattr(storage.files, "_locked", refuse)
    with pytest.raises(PermissionError, match=r"cannot write .*a\.zarr: Permission denied"):
        same_sweep(tmp_path / "closed" / "a.zarr")
    assert not list((tmp_path / "closed").iterdir())


def test_a_full_disk_keeps_the_finished_chunks_and_the_sweep_goes_on(whole, tmp_path, monkeypatch):
    put, written = storage.Store._put, []

    def fill(store, path, content):
        if len(written) > 40:
            raise OSError(errno.ENOSPC, "No space left on device")
        written.append(path)
        put(store, path, content)

    path = tmp_path / "a.zarr"
    with monkeypatch.context() as patch:
        patch.setattr(storage.Store, "_put", fill)
        with pytest.raises(OSError, match=r"No space left on device; \d of 6 chunks are finished and kept") as error:
            same_sweep(path)
    assert error.value.errno == errno.ENOSPC
    assert 0 < finished(path) < 6
    same_sweep(path)
    assert contents(path) == contents(whole)


def torn(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-5])


def half(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def longer(path: Path) -> None:
    path.write_bytes(path.read_bytes() * 2)


def flipped(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[3] ^= 16
    path.write_bytes(content)


def foreign(path: Path) -> None:
    """The same variable, of another place."""
    path.write_bytes((path.parent / OTHER[path.name]).read_bytes())


def deleted(path: Path) -> None:
    path.unlink()


PIECE, OTHER = "3.0.0", {"3.0.0": "1.0.0", "3.0.0.0": "1.0.0.0", "3.0": "1.0"}


@pytest.fixture
def damaged(whole, tmp_path):
    """A copy to damage; its fourth chunk, number 3, is the files 3.0.0 and so on."""
    return Path(shutil.copytree(whole, tmp_path / "a.zarr"))


@pytest.mark.parametrize("damage", [torn, half, longer, flipped, foreign, deleted])
@pytest.mark.parametrize("piece", ["emergence/3.0.0.0", "winner/3.0.0", "lasts/3.0.0.0", "progress/checksum/3.0"])
def test_a_damaged_chunk_is_named_and_the_same_sweep_computes_it_again(whole, damaged, monkeypatch, damage, piece):
    """Exactly this one, to the bytes of a sweep that nobody disturbed."""
    computed, compute = [], execution.measured_chunk
    monkeypatch.setattr(execution, "measured_chunk", lambda sweep, n: computed.append(n) or compute(sweep, n))
    before = (damaged / piece).read_bytes()
    damage(damaged / piece)
    changed = not (damaged / piece).exists() or (damaged / piece).read_bytes() != before
    if changed and not (damage is deleted and piece.startswith("progress")):
        with pytest.raises(ValueError, match=r"a\.zarr is damaged.*\n  chunk 3 \(of 0 to 5\): "):
            tm.open_sweep(damaged)
    same_sweep(damaged)
    assert computed == ([3] if changed else [])
    assert contents(damaged) == contents(whole)


def test_a_whole_chunk_of_another_place_is_found(whole, damaged):
    """With its checksums: they start from the number of the chunk."""
    for path in damaged.rglob("3.0*"):
        foreign(path)
    with pytest.raises(ValueError, match=r"chunk 3 .*emergence/3\.0\.0\.0.* without the right checksum"):
        tm.open_sweep(damaged)
    same_sweep(damaged)
    assert contents(damaged) == contents(whole)


def test_a_chunk_that_was_never_finished_is_no_fault(whole, damaged):
    for path in damaged.rglob("3.0*"):
        path.unlink()
    assert (tm.open_sweep(damaged)["phase"].values == "not run").sum() == 10
    same_sweep(damaged)
    assert contents(damaged) == contents(whole)


@pytest.mark.parametrize("name", [".zmetadata", ".zattrs", "alpha/0", "emergence/.zarray", ".zgroup"])
@pytest.mark.parametrize("damage", [torn, deleted])
def test_a_damaged_header_is_mended(whole, damaged, name, damage):
    damage(damaged / name)
    if name in (".zmetadata", "alpha/0"):
        with pytest.raises(ValueError, match=r"a\.zarr is damaged, the same sweep mends it"):
            tm.open_sweep(damaged)
    same_sweep(damaged)
    assert contents(damaged) == contents(whole)


def test_many_damaged_chunks_are_counted(damaged):
    for path in (damaged / "final").glob("[0-9]*"):
        torn(path)
    with pytest.raises(ValueError, match=r"(?s)chunk 0 .*chunk 4 .*and 1 other chunks"):
        tm.open_sweep(damaged)


def test_values_that_are_no_whole_chunk_are_refused(tmp_path):
    """As a worker with other code might send."""
    sweep = tm.Sweep(MODEL, **ARGUMENTS)
    right = execution.measured_chunk(sweep, 0)
    with storage.Store(sweep, tmp_path / "a.zarr") as store:
        with pytest.raises(ValueError, match=r"a\.zarr: winner of chunk 0 has no label 77"):
            store.write(0, {**right, "winner": right["winner"] + 77 * (np.arange(10) == 4)})
        with pytest.raises(ValueError, match=r"a\.zarr: minimum of chunk 0 must be of 10 runs, got the shape \(5, 2\)"):
            store.write(0, {**right, "minimum": right["minimum"][:5]})
        assert store.pending() == list(range(6))


@pytest.mark.slow
def test_a_second_process_is_told_that_one_is_at_work(tmp_path):
    """While it makes the store, and while it goes on; a lock that a killed process left does not hold."""
    path, sweep = tmp_path / "a.zarr", tm.Sweep(MODEL, **ARGUMENTS)
    (tmp_path / ".a.zarr.lock").write_text("process 1 on a machine that is gone\n")
    again = "import sys, toymodel as tm; from toymodel.sweeps.store import Store; "
    again += "from test_sweep_store import MODEL, ARGUMENTS; Store(tm.Sweep(MODEL, **ARGUMENTS), sys.argv[1])"
    command = [sys.executable, "-c", again, str(path)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(provenance.ROOT), str(Path(__file__).parent)])}
    with storage.Store(sweep, path):
        other = subprocess.run(command, env=environment, capture_output=True, text=True)
        said = f"BlockingIOError: {path}: another process is at work on it (process {os.getpid()} on "
        assert said in other.stderr
        with pytest.raises(BlockingIOError, match="another process is at work"):
            same_sweep(path)
    assert os.listdir(tmp_path) == ["a.zarr"]
    other = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert other.returncode == 0, other.stderr


def test_where_locks_do_not_work_the_second_creator_is_refused(tmp_path, monkeypatch):
    path, rename = tmp_path / "a.zarr", os.rename

    def late(one, other):
        shutil.copytree(one, other)
        rename(one, other)

    monkeypatch.setattr(storage.os, "rename", late)
    with pytest.raises(BlockingIOError, match=r"a\.zarr: another process has just made it"):
        storage.Store(tm.Sweep(MODEL, **ARGUMENTS), path)
    assert os.listdir(tmp_path) == ["a.zarr"]


def test_anyone_reads_a_store_with_xarray_alone(whole):
    """Labels by name, coordinates, no warning (warnings are errors here), and the same values."""
    ours = tm.open_sweep(whole).load()
    for others in ({}, {"consolidated": False}, {"chunks": None}):
        found = xr.open_zarr(whole, **others)
        assert set(found.coords) == set(ours.coords)
        for name in found.data_vars:
            np.testing.assert_array_equal(found[name].values, ours[name].values)
            assert found[name].dims == ours[name].dims and found[name].dtype == ours[name].dtype, name
    assert set(np.unique(found["phase"])) <= {*labels_of(MODEL.mechanisms)["phase"]}


def test_the_points_of_a_design_are_coordinates(tmp_path):
    given = dict(over={"alpha": tm.log(1e-2, 1), "lr": tm.linear(0.5, 1)}, steps=20, design=tm.samples(5), chunk=2)
    stored = tm.sweep(MODEL, store=tmp_path / "a.zarr", **given)
    xr.testing.assert_identical(stored.load(), tm.sweep(MODEL, **given))
    assert set(xr.open_zarr(tmp_path / "a.zarr").coords) == {"sample", "alpha", "lr", "mechanism"}


@pytest.mark.parametrize(
    "at",
    [
        dict(alpha=2, mu_icl=slice(1, 4)),
        dict(alpha=slice(None, None, -2), seed=0, mechanism=1),
        dict(alpha=[5, 0, 0], mu_icl=np.array([4, 1]), time=slice(2, None)),
        dict(alpha=-1, mu_icl=0, seed=1, time=3),
    ],
)
def test_parts_are_read_as_from_memory(tmp_path_factory, at):
    """Chunks at the edge of the grid and trajectories among them; what is not asked for is not read."""
    path = tmp_path_factory.getbasetemp() / "parts.zarr"
    given = {**ARGUMENTS, "chunk": 8, "every": 50}
    stored, kept = tm.sweep(MODEL, store=path, **given), tm.sweep(MODEL, **given)
    for name in stored.data_vars:
        here = {dim: part for dim, part in at.items() if dim in stored[name].dims}
        xr.testing.assert_identical(stored[name].isel(here).load(), kept[name].isel(here))


def test_a_sweep_of_a_single_run_is_stored(tmp_path):
    one = tm.sweep(MODEL, {}, steps=20, store=tmp_path / "a.zarr")
    xr.testing.assert_identical(one.load(), tm.sweep(MODEL, {}, steps=20))


def test_a_chunk_that_is_damaged_after_opening_is_named(damaged):
    stored = tm.open_sweep(damaged)
    torn(damaged / "final" / "3.0.0.0")
    with pytest.raises(ValueError, match=r"final/3\.0\.0\.0 of chunk 3 was damaged since the store was opened"):
        stored["final"].load()


def test_ctrl_c_finishes_the_chunk_and_says_how_to_go_on(whole, tmp_path, monkeypatch):
    path, compute = tmp_path / "a.zarr", execution.measured_chunk

    def interrupted(declared, number):
        if number == 2:
            signal.raise_signal(signal.SIGINT)
        return compute(declared, number)

    with monkeypatch.context() as patch:
        patch.setattr(execution, "measured_chunk", interrupted)
        with pytest.raises(KeyboardInterrupt, match=r"stopped with 3 of 6 chunks left; give the same command again"):
            tm.sweep(MODEL, store=path, **ARGUMENTS)
    assert finished(path) == 3
    tm.sweep(MODEL, store=path, **ARGUMENTS)
    assert contents(path) == contents(whole)


def test_a_second_ctrl_c_stops_at_once(tmp_path, monkeypatch):
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job ignores it

    def interrupted(declared, number):
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(execution, "measured_chunk", interrupted)
    with pytest.raises(KeyboardInterrupt):
        tm.sweep(MODEL, store=tmp_path / "a.zarr", **ARGUMENTS)
    signal.signal(signal.SIGINT, before)
    assert finished(tmp_path / "a.zarr") == 0


def test_a_sweep_runs_in_a_thread():
    """Where Ctrl-C cannot be caught."""
    found = []
    thread = threading.Thread(target=lambda: found.append(tm.sweep(MODEL, {"alpha": [0.1]}, steps=10)))
    thread.start()
    thread.join()
    assert found[0].sizes["alpha"] == 1


def test_progress_is_shown_on_a_terminal_only(capfd):
    tm.sweep(MODEL, **ARGUMENTS)
    assert capfd.readouterr().err == ""
    tm.sweep(MODEL, progress=True, **ARGUMENTS)
    shown = capfd.readouterr().err
    assert "60/60" in shown and "run/s" in shown


def test_a_store_in_progress_can_be_read(tmp_path, monkeypatch):
    path, compute = tmp_path / "a.zarr", execution.measured_chunk

    def stop(declared, number):
        if number == 3:
            raise RuntimeError("a worker was lost")
        return compute(declared, number)

    monkeypatch.setattr(execution, "measured_chunk", stop)
    with pytest.raises(RuntimeError, match="a worker was lost"):
        tm.sweep(MODEL, store=path, **ARGUMENTS)
    part = tm.open_sweep(path)
    assert (part["phase"].values == "not run").mean() == 0.5
    assert np.isnan(part["minimum"].values).mean() == 0.5
