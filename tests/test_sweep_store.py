"""Stores: the same measures however written, refusal of another sweep's, and one clear error when writing fails."""

import errno
import json
import os
import signal
import threading
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

import toymodel as tm
from toymodel.sweeps import execute as execution
from toymodel.sweeps import store as storage

MODEL = tm.coopetition()
OVER = {"alpha": tm.log(1e-2, 1, 6), "mu_icl": tm.log(1e-2, 1, 5)}
ARGUMENTS = dict(over=OVER, seeds=range(2), steps=200, chunk=10)


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def finished(folder: Path) -> int:
    return sum(path.name.isdigit() for path in (folder / "progress" / "finished").iterdir())


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
        ({"interventions": 'Clamp("d", overlap=0)'}, r"interventions: \[\] in the store, \['Clamp"),
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


def test_a_store_of_another_version_is_refused(whole, monkeypatch):
    monkeypatch.setattr(storage, "FORMAT", 99)
    with pytest.raises(ValueError, match="made with toymodel_format 1, this is 99"):
        tm.sweep(MODEL, store=whole, **ARGUMENTS)


def test_a_folder_that_is_no_store_is_refused_and_kept(tmp_path):
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter").write_text("1")
    for call in (lambda p: tm.sweep(MODEL, store=p, **ARGUMENTS), tm.open_sweep):
        with pytest.raises(ValueError, match="is not a store of a sweep"):
            call(tmp_path / "thesis")
    assert (tmp_path / "thesis" / "chapter").read_text() == "1"
    with pytest.raises(FileNotFoundError, match="no such store"):
        tm.open_sweep(tmp_path / "nothing")


def test_a_missing_folder_is_one_clear_error(tmp_path):
    with pytest.raises(OSError, match=r"cannot write .*a\.zarr: there is no folder"):
        tm.sweep(MODEL, store=tmp_path / "missing" / "a.zarr", **ARGUMENTS)


def test_a_folder_without_permission_is_one_clear_error(tmp_path, monkeypatch):
    """Also where the tests run as root, whom permissions do not stop."""
    (tmp_path / "closed").mkdir(mode=0o500)
    if os.access(tmp_path / "closed", os.W_OK):

        def refuse(*_, **__):
            raise PermissionError(errno.EACCES, "Permission denied")

        monkeypatch.setattr(storage.zarr, "open_group", refuse)
    with pytest.raises(OSError, match=r"cannot write .*a\.zarr: Permission denied"):
        tm.sweep(MODEL, store=tmp_path / "closed" / "a.zarr", **ARGUMENTS)
    assert not list((tmp_path / "closed").iterdir())


def test_a_full_disk_keeps_the_finished_chunks_and_the_sweep_goes_on(whole, tmp_path, monkeypatch):
    from zarr.storage import _local

    put, written = _local._put, []

    def fill(path, *others, **named):
        if not path.name.startswith(".") and len(written) > 100:
            raise OSError(errno.ENOSPC, "No space left on device")
        written.append(path)
        return put(path, *others, **named)

    path = tmp_path / "a.zarr"
    with monkeypatch.context() as patch:
        patch.setattr(_local, "_put", fill)
        with pytest.raises(OSError, match=r"No space left on device; \d of 6 chunks are finished and kept") as error:
            tm.sweep(MODEL, store=path, **ARGUMENTS)
    assert error.value.errno == errno.ENOSPC
    assert 0 < finished(path) < 6
    tm.sweep(MODEL, store=path, **ARGUMENTS)
    assert contents(path) == contents(whole)


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
