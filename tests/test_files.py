"""Writing whole or not at all, locks that end with their process, and fingerprints of what is computed."""

import ast
import errno
import os
import re
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

import toymodel as tm
from toymodel import files, provenance


def test_a_file_is_there_whole_or_not_at_all(tmp_path):
    path = tmp_path / "a.csv"
    with files.written(path) as whole:
        assert whole.parent == path.parent and whole.suffix == ".csv"
        whole.write_text("old")
        assert not path.exists()
    with pytest.raises(ZeroDivisionError), files.written(path) as whole:
        whole.write_text("new")
        raise ZeroDivisionError
    assert path.read_text() == "old" and os.listdir(tmp_path) == ["a.csv"]


@pytest.mark.parametrize(
    ("name", "kind", "reason"),
    [
        ("none/a.csv", FileNotFoundError, "No such file or directory"),
        ("file/a.csv", NotADirectoryError, "Not a directory"),
        ("folder.csv", IsADirectoryError, "Is a directory"),
    ],
)
def test_what_cannot_be_written_is_named(tmp_path, name, kind, reason):
    (tmp_path / "file").touch()
    (tmp_path / "folder.csv").mkdir()
    with pytest.raises(kind, match=f"^cannot write {tmp_path / name}: {reason}$"), files.written(tmp_path / name) as a:
        a.write_text("x")
    assert sorted(os.listdir(tmp_path)) == ["file", "folder.csv"]


LIMITED = """
import resource, sys
from pathlib import Path
import numpy as np, xarray as xr
import toymodel as tm
from toymodel import plotting
runs = xr.Dataset({"x": ("i", np.random.default_rng(0).normal(size=100_000))})
figure, axes = plotting.new()
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
for write in (lambda p: tm.save(runs, p / "a.nc"), lambda p: plotting.save(figure, p / "a.png")):
    try:
        write(Path(sys.argv[1]))
    except OSError as error:
        print(type(error).__name__, error)
"""


@pytest.mark.slow
def test_a_limit_on_the_size_of_files_is_one_clear_error(tmp_path):
    """A real failing write, of a record and of a figure: nothing is left."""
    done = subprocess.run([sys.executable, "-c", LIMITED, str(tmp_path)], capture_output=True, text=True)
    said = [f"OSError cannot write {tmp_path / name}: File too large" for name in ("a.nc", "a.png")]
    assert done.stdout.splitlines() == said, done.stderr
    assert not list(tmp_path.iterdir())


def test_the_kind_and_the_number_of_an_error_stay(tmp_path):
    with pytest.raises(OSError) as found, files.written(tmp_path / "a"):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    assert found.value.errno == errno.ENOSPC and str(found.value).endswith("a: No space left on device")


HOLDS = """
import sys, time
from toymodel import files, provenance
with files.alone(sys.argv[1]):
    print("locked", flush=True)
    time.sleep(60)
"""


def test_a_lock_ends_with_its_process_also_when_it_is_killed(tmp_path):
    path = tmp_path / "a"
    process = subprocess.Popen([sys.executable, "-c", HOLDS, str(path)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None and process.stdout.readline() == "locked\n"
    said = rf"{path}: another process is at work on it \(process {process.pid} on "
    with pytest.raises(BlockingIOError, match=said), files.alone(path):
        pass
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert os.listdir(tmp_path) == [".a.lock"]
    with files.alone(path), files.alone(tmp_path / "b"):
        assert ".a.lock" in os.listdir(tmp_path)
    assert os.listdir(tmp_path) == []


def test_who_has_patience_waits_for_the_lock(tmp_path):
    path, order = tmp_path / "a", []

    def waits():
        with files.alone(path, patience=30):
            order.append("second")

    with files.alone(path):
        waiting = threading.Thread(target=waits)
        waiting.start()
        waiting.join(0.2)
        order.append("first")
    waiting.join(30)
    assert order == ["first", "second"]


def test_any_dataset_is_written_whole_and_packed(tmp_path):
    """Text and gaps come back; a name that cannot be written leaves nothing."""
    data = xr.Dataset({"a": ("x", np.zeros(10_000)), "b": ("y", ["one", "three"])})
    plain, packed = (files.write_netcdf(data, tmp_path / f"{p}.nc", packed=p) for p in (False, True))
    assert packed.stat().st_size < 0.5 * plain.stat().st_size
    for path in (plain, packed):
        assert xr.load_dataset(path, engine="h5netcdf").equals(data)
    with pytest.raises(FileNotFoundError, match="cannot write"):
        files.write_netcdf(data, tmp_path / "none" / "a.nc")
    assert len(os.listdir(tmp_path)) == 2


CODE = '''
"""A module."""

import math  # of the standard library


def area(r):
    """The area of a circle."""
    return math.pi * r**2


class Circle:
    "A circle."

    r: float = 1.0
'''


@pytest.fixture
def code(tmp_path):
    """Writes a module and gives its fingerprint."""
    path = tmp_path / "circle.py"

    def of(text: str) -> str:
        path.write_text(text)
        os.utime(path, ns=(time.time_ns(), time.time_ns()))
        return provenance.fingerprint(path)

    return of


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('"""A module."""', '"""A module of circles."""\n# more'),
        ('"""A module."""', ""),
        ("  # of the standard library", ""),
        ('    """The area of a circle."""\n', ""),
        ('    "A circle."\n', '    r"""A \\circle."""\n'),
        ("math.pi * r**2", "(\n        math.pi * r ** 2\n    )"),
    ],
)
def test_a_fingerprint_is_blind_to_comments_docstrings_and_layout(code, old, new):
    assert old in CODE
    assert code(CODE) == code(CODE.replace(old, new))


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("r**2", "r**3"),
        ("1.0", "1"),
        ("(r)", "(r, /)"),
        ("math.pi", "math.tau"),
        ("import math", "import math, os"),
        ("def area", "async def area"),
        ("    return", '    "not the docstring"\n    return'),
        ("    return math.pi", "    None\n    return math.pi"),
    ],
)
def test_a_fingerprint_sees_what_is_computed(code, old, new):
    assert old in CODE
    assert code(CODE) != code(CODE.replace(old, new))


def test_the_text_of_a_tree_has_no_empty_fields():
    """They differ between versions of Python, in which the fingerprint is the same."""
    function = "FunctionDef(name='f',args=arguments(args=[arg(arg='x')]),body=[Return(value=Name(id='x'))])"
    assert provenance._plain(ast.parse("def f(x):\n    return x")) == f"Module(body=[{function}])"


def test_data_count_byte_for_byte_and_names_count(tmp_path):
    one, other = tmp_path / "one.csv", tmp_path / "other.csv"
    one.write_text("1,2")
    other.write_text("1,2")
    assert provenance.fingerprint(one) != provenance.fingerprint(other)
    assert provenance.fingerprint(one, other) == provenance.fingerprint(other, one, one)
    before = provenance.fingerprint(one)
    one.write_text("1, 2")
    assert provenance.fingerprint(one) != before


def test_imports_are_read_from_the_code():
    """The same whatever this process has imported; through packages, in functions and under TYPE_CHECKING as well."""
    from toymodel import plotting
    from toymodel.sweeps import store

    found = {path.relative_to(provenance.ROOT).as_posix() for path in provenance.imports(store)}
    assert {"toymodel/__init__.py", "toymodel/sweeps/grid.py", "toymodel/model.py", "toymodel/measures.py"} <= found
    assert "toymodel/plotting.py" not in found and "toymodel/cli.py" not in found
    of_plots = {path.name for path in provenance.imports(plotting)}
    assert of_plots == {"__init__.py", "plotting.py"}  # how a file is written changes no figure


@pytest.mark.parametrize("value", [None, True, {"a": 1}, [[1, 2], [3, 4]], [None], 1j])
@pytest.mark.parametrize("of", ["runs", "runs['x']"])
def test_an_attribute_that_a_file_cannot_hold_is_named(tmp_path, value, of):
    runs = xr.Dataset({"x": ("i", [1.0, 2.0])})
    (runs if of == "runs" else runs["x"]).attrs["note"] = value
    with pytest.raises(ValueError, match=re.escape(f"{of}: the attribute 'note' must be text, a number or a list")):
        tm.save(runs, tmp_path / "a.nc")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("value", ["text", 1, 2.5, [1, 2], ["a", "b"], ""])
def test_other_attributes_come_back(tmp_path, value):
    runs = xr.Dataset({"x": ("i", [1.0, float("nan")]), "n": ("i", ["a", "bc"])}, attrs={"note": value})
    back = tm.load(tm.save(runs, tmp_path / "a.nc"))
    np.testing.assert_array_equal(back.attrs["note"], value)


def test_a_changed_number_in_a_record_is_found(tmp_path):
    """The file is whole and readable, one value is not what was saved."""
    import h5py

    path = tm.save(xr.Dataset({"x": ("i", [1.0, 2.0, 3.0])}), tmp_path / "a.nc")
    with h5py.File(path, "r+") as file:
        file["x"][1] = 2.0000000000000004
    with pytest.raises(ValueError, match=r"a\.nc is damaged: its content does not have the checksum"):
        tm.load(path)


def test_a_file_without_variables_is_no_record(tmp_path):
    xr.Dataset(attrs={"toymodel_format": 1}).to_netcdf(tmp_path / "a.nc", engine="h5netcdf")
    with pytest.raises(ValueError, match=r"a\.nc is damaged: it has no variables"):
        tm.load(tmp_path / "a.nc")
    with pytest.raises(ValueError, match="runs has no variables; there is nothing to save"):
        tm.save(xr.Dataset(), tmp_path / "b.nc")


@pytest.mark.parametrize("model", ["", "{", "[1]", "null", "[" * 100_000])
def test_a_damaged_model_is_found_when_the_file_is_read(tmp_path, model):
    path = tm.save(xr.Dataset({"x": 1.0}, attrs={"model": model}), tmp_path / "a.nc")
    with pytest.raises(ValueError, match=r"a\.nc is damaged: its attribute 'model' is no table in JSON"):
        tm.load(path)


def test_a_check_of_staleness_imports_nothing_large():
    heavy = ("jax", "sympy", "zarr", "matplotlib")
    said = f"import sys, toymodel.files, toymodel.records; print([m for m in {heavy} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", said], capture_output=True, text=True, check=True, cwd=provenance.ROOT)
    assert done.stdout == "[]\n"


def test_the_module_without_a_task_says_how_to_use_it():
    done = subprocess.run(
        [sys.executable, "-m", "toymodel.provenance"], capture_output=True, text=True, cwd=Path(provenance.ROOT)
    )
    assert done.returncode == 1 and "usage: " in done.stderr
