"""Records: what they say of themselves, saving and loading, files that are damaged, foreign or of another version."""

import json
import os

import numpy as np
import pytest
import xarray as xr
from zoo import shaped

import toymodel as tm
from toymodel import records


@pytest.fixture(scope="module")
def runs():
    model = shaped("paper")
    acts = [tm.Clamp("d", overlap=0, at=1), tm.Change(at=2, alpha=0.9)]
    start = tm.random_start(model, range(2))
    return tm.descend(model, start, 30, lr=0.1, mu=[0.1, 0.2], weights={"cost": 0.5}, interventions=acts)


def test_a_record_says_how_to_make_it_again(runs):
    """Model, parameters, weights, step size and start from the attributes and coordinates give the same numbers."""
    assert runs.attrs["toymodel_version"] and runs.attrs["toymodel_commit"]
    assert json.loads(runs.attrs["parameters"]) == {"alpha": 0.1, "mu": "swept", "nu": 0.0}
    assert runs.attrs["interventions"] == "Clamp('d', at=1, overlap=0); Change(at=2, alpha=0.9)"
    again = tm.descend(
        tm.model_of(runs),
        tm.state_at(runs, 0.0).isel(mu=0, drop=True),
        30,
        lr=0.1,
        mu=list(runs["mu"].values),
        weights={"cost": json.loads(runs.attrs["weights"])["cost"]},
        interventions=[tm.Clamp("d", overlap=0, at=1), tm.Change(at=2, alpha=0.9)],
    )
    np.testing.assert_array_equal(again.loss, runs.loss)


def test_saved_and_loaded_is_the_same(runs, tmp_path):
    path = tm.save(runs, tmp_path / "runs.nc")
    back = tm.load(path)
    xr.testing.assert_identical(back.drop_attrs(), runs.drop_attrs())
    assert {k: str(v) for k, v in back.attrs.items()} == {k: str(v) for k, v in runs.attrs.items()}
    assert tm.model_of(back) == tm.model_of(runs)
    xr.testing.assert_equal(tm.measure(back), tm.measure(runs))
    assert os.listdir(tmp_path) == ["runs.nc"]


def test_a_start_can_be_saved_too(tmp_path):
    start = tm.random_start(shaped("paper"), range(2))
    back = tm.load(tm.save(start, tmp_path / "start.nc"))
    xr.testing.assert_equal(back, start)
    with pytest.raises(ValueError, match="no record of a run: it has no attribute 'model'"):
        tm.model_of(back)


def test_what_holds_in_a_run_wins_over_what_its_start_brings():
    """A start that was taken at one alpha of a sweep, or at all of them."""
    model = shaped("paper")
    swept = tm.descend(model, tm.random_start(model, 0), 5, lr=0.1, alpha=[0.1, 0.2])
    one = tm.state_at(swept, 0.5).sel(alpha=0.2)
    assert float(tm.descend(model, one, 5, lr=0.1, alpha=0.7).alpha) == 0.7
    assert float(tm.descend(model, one, 5, lr=0.1).alpha) == model.parameters["alpha"]
    many = tm.state_at(swept, 0.5)
    with pytest.raises(ValueError, match=r"start has the dimension 'alpha', .* give alpha=start\['alpha'\]"):
        tm.descend(model, many, 5, lr=0.1, alpha=0.7)
    np.testing.assert_array_equal(tm.descend(model, many, 5, lr=0.1, alpha=many["alpha"]).alpha, [0.1, 0.2])


def test_a_record_has_the_numbers_of_labelled_interventions():
    """What another run gave is written out, where it is not long."""
    model = shaped("paper")
    other = tm.random_start(model, [4, 7])
    runs = tm.descend(model, tm.random_start(model, 0), 5, lr=0.1, interventions=[tm.Clamp("bc", like=other)])
    said = runs.attrs["interventions"].split("like=")[1].removesuffix(")")
    given = xr.Dataset.from_dict(json.loads(said))
    xr.testing.assert_equal(given, other[["overlap", "residual"]].sel(vector=["b", "c"]))


def test_a_failed_write_leaves_the_old_file(runs, tmp_path, monkeypatch):
    """As on a full disk: one error, the file that was there stays whole, nothing half written is left."""
    path = tm.save(runs, tmp_path / "runs.nc")
    before = path.read_bytes()

    def full(target, content):
        target.write_text("half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(records.Path, "write_bytes", full)
    with pytest.raises(OSError, match=r"cannot write .*runs\.nc: No space left on device"):
        tm.save(runs, path)
    assert path.read_bytes() == before and os.listdir(tmp_path) == ["runs.nc"]


def test_a_folder_that_is_not_there(runs, tmp_path):
    with pytest.raises(OSError, match=r"cannot write .*none.runs\.nc: No such file or directory"):
        tm.save(runs, tmp_path / "none" / "runs.nc")


@pytest.mark.parametrize("size", [0, 100, 5000])
def test_a_truncated_file(runs, tmp_path, size):
    path = tm.save(runs, tmp_path / "runs.nc")
    path.write_bytes(path.read_bytes()[:size])
    with pytest.raises(ValueError, match=r"runs\.nc is damaged or no NetCDF file"):
        tm.load(path)


def test_a_file_of_another_version(runs, tmp_path, monkeypatch):
    monkeypatch.setattr(records, "FORMAT", 99)
    path = tm.save(runs.assign_attrs(toymodel_format=99), tmp_path / "runs.nc")
    monkeypatch.undo()
    with pytest.raises(ValueError, match="has format 99, this version of toymodel reads format 1"):
        tm.load(path)


def test_a_foreign_file(tmp_path):
    xr.Dataset({"x": 1}).to_netcdf(tmp_path / "other.nc", engine="h5netcdf")
    with pytest.raises(ValueError, match=r"other\.nc is not a record of toymodel"):
        tm.load(tmp_path / "other.nc")
    with pytest.raises(FileNotFoundError, match=r"no such file: .*gone\.nc"):
        tm.load(tmp_path / "gone.nc")
    with pytest.raises(ValueError, match=r"a name that ends in \.nc, got 'runs\.txt'"):
        tm.load(tmp_path / "runs.txt")


@pytest.mark.parametrize(
    "value", [3, -1.5, "text", "", [1, 2], [0.5, 0.25], ["a", "b"], np.float32(2), np.array([1, 2])]
)
def test_attributes_come_back(value, tmp_path):
    data = xr.Dataset({"x": ("time", [1.0])}, attrs={"given": value})
    back = tm.load(tm.save(data, tmp_path / "x.nc")).attrs["given"]
    np.testing.assert_array_equal(back, value)
