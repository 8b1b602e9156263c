"""Do the tests notice a wrong coefficient? Changes coefficients of the theory and of derivations one by one, in a copy.

For each row of MUTATIONS a copy of the repository gets one text replaced by another, and the tests that concern it run;
a mutation is caught if they fail. Before, the same tests have to pass without a change. Every run is a fork of one
process that has the libraries loaded. Prints what is not caught, and exits with 1 if there is any.
Run: python benchmarks/mutations.py [first] [last]
"""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parent.parent
COPIED = ("toymodel", "derivations", "tests", "benchmarks")


class Mutation(NamedTuple):
    """A text in a file, what it becomes, and the tests that have to fail then: a file, and words that choose in it."""

    file: str
    old: str
    new: str
    tests: str
    chosen: str = ""


PLATEAU, WAVES = "tests/test_theory_plateau.py", "tests/test_theory_emergence.py"
COOPERATION, UNITS = "tests/test_theory_cooperation.py", "tests/test_theory_units.py"
BUMP, DECAY = "tests/test_theory_bump.py", "tests/test_theory_weight_decay.py"
DISCRETE, CONSERVED = "tests/test_theory_discrete.py", "tests/test_theory_conserved.py"
FORMS, SLOW = "tests/test_derivation_checks_slow.py", "tests/test_theory_slow_manifold.py"
T, D = "toymodel/theory/", "derivations/"
MUTATIONS = [
    Mutation(T + "plateau.py", "2 * slope * polynomial", "3 * slope * polynomial", PLATEAU, "hand or algebra"),
    Mutation(T + "plateau.py", "-slope * polynomial", "-2 * slope * polynomial", PLATEAU, "hand or algebra"),
    Mutation(T + "weighted_sum.py", "44 / 45", "43 / 45", WAVES, "weighted_sum"),
    Mutation(T + "weighted_sum.py", "rest + cost_loss", "rest + 3 * cost_loss", WAVES, "turned"),
    Mutation(T + "weighted_sum.py", "[mechanism] - 0.5", "[mechanism] - 0.45", WAVES, "weighted_sum"),
    Mutation(T + "weighted_sum.py", "shift = -added", "shift = -9 * added", WAVES, "weighted_sum"),
    Mutation(T + "three_waves.py", "(x + shift) / 4, (y", "(x + shift) / 3, (y", WAVES, "carlson"),
    Mutation(T + "three_waves.py", "np_.sqrt(3 / (x", "np_.sqrt(2 / (x", WAVES, "carlson"),
    Mutation(T + "three_waves.py", "2 * carlson(np_", "3 * carlson(np_", WAVES, "divergence"),
    Mutation(T + "three_waves.py", "a * b * c >= 0", "a * b * c <= 0", WAVES, "divergence"),
    Mutation(T + "three_waves.py", "time = undamped - carlson", "time = undamped + carlson", WAVES, "small_starts_are"),
    Mutation(
        T + "three_waves.py",
        "short = np.prod(middle + above, 0) < goal**2",
        "short = middle < goal",
        WAVES,
        "reach_a_product",
    ),
    Mutation(T + "units.py", "2 * n1 + 2 * n2 - 2", "2 * n1 + 2 * n2 - 3", UNITS, "velocity"),
    Mutation(T + "units.py", "2 * nc - 2 * n1", "nc - 2 * n1", UNITS, "velocity"),
    Mutation(T + "units.py", "2 * parameters[", "3 * parameters[", UNITS, "velocity"),
    Mutation(T + "units.py", "length**n2", "length**n1", UNITS, "velocity"),
    Mutation(T + "cooperation.py", "/ (2 * (K1**2 + K2**2))", "/ (3 * (K1**2 + K2**2))", COOPERATION, "algebra"),
    Mutation(T + "cooperation.py", "B * sp.sqrt(K1**2 + K2**2)", "B * sp.sqrt(K1**2 + 2 * K2**2)", PLATEAU, "algebra"),
    Mutation(T + "cooperation.py", "sp.log((pull + root) ** 2", "sp.log((pull + root) ** 3", COOPERATION, "algebra"),
    Mutation(T + "cooperation.py", "/ (2 * root)", "/ (3 * root)", COOPERATION, "algebra"),
    Mutation(T + "cooperation.py", "1 / (private * K1", "1 / (2 * private * K1", COOPERATION, "algebra"),
    Mutation(T + "cooperation.py", "(learned**2 - d0**2)", "(learned**2 - 2 * d0**2)", COOPERATION, "overlap_of_d"),
    Mutation(T + "cooperation.py", "4 * sp.pi * missing", "2 * sp.pi * missing", COOPERATION, "algebra"),
    Mutation(T + "cooperation.py", "(reached / 2) / 2", "(reached / 2) / 3", COOPERATION, "algebra"),
    Mutation(T + "cooperation.py", "(T1 * (1 + GAMMA))", "(T1 * (2 + GAMMA))", COOPERATION, "algebra"),
    Mutation(T + "quadrature.py", "(2 * x + self.k * s)", "(x + self.k * s)", COOPERATION, "gain"),
    Mutation(T + "quadrature.py", "np.sinh(2 * self.k * s)", "np.sinh(self.k * s)", COOPERATION, "gain"),
    Mutation(T + "quadrature.py", "x * cosh + rest[0] * sinh", "x * cosh + 2 * rest[0] * sinh", COOPERATION, "gain"),
    Mutation(T + "bumps.py", "sp.Rational(3, 4)", "sp.Rational(4, 5)", BUMP, "integrals"),
    Mutation(T + "bumps.py", "(TA / TD) ** 2 / 6", "(TA / TD) ** 2 / 7", BUMP, "integrals"),
    Mutation(T + "bumps.py", "share = r**2 /", "share = 2 * r**2 /", BUMP, "integrals"),
    Mutation(T + "bumps.py", "(1 - x) ** 2 + z**2, (1", "(1 - x) ** 2 + 2 * z**2, (1", BUMP, "largest_rise"),
    Mutation(T + "weight_decay.py", "return 8 * (mu1", "return 9 * (mu1", DECAY, "derivation_holds"),
    Mutation(T + "weight_decay.py", "sp.Rational(9, 16)", "sp.Rational(8, 16)", DECAY, "derivation_holds"),
    Mutation(T + "weight_decay.py", "1 + 4 * gain", "1 + 5 * gain", DECAY, "derivation_holds"),
    Mutation(T + "weight_decay.py", "(n - 2) / (2 * n - 2)", "(n - 2) / (2 * n - 1)", DECAY, "derivation_holds"),
    Mutation(T + "discrete.py", "slope / 3 + bent / 12", "slope / 3 + bent / 11", DISCRETE, "next_order"),
    Mutation(T + "discrete.py", "/ (4 * slope)", "/ (3 * slope)", DISCRETE, "floor"),
    Mutation(T + "discrete.py", "* 4 * alpha * wc", "* 5 * alpha * wc", DISCRETE, "derivation_holds and noise"),
    Mutation(T + "long_noise.py", "/ (8 * alpha)", "/ (7 * alpha)", DISCRETE, "lasting_state"),
    Mutation(
        T + "discrete.py",
        "return s**2 * (n_d - n_a - n_b)",
        "return s**2 * (n_d - n_a)",
        DISCRETE,
        "derivation_holds and long",
    ),
    Mutation(
        T + "long_noise.py", 'if strategy == "icl" else 0.0', 'if strategy == "icl" else s1**2', DISCRETE, "two_states"
    ),
    Mutation(
        T + "asymptotics.py",
        '(t["d"] ** 2 - t["a"] ** 2)',
        '(t["d"] ** 2)',
        "tests/test_theory_asymptotics.py",
        "start_decides",
    ),
    Mutation(T + "asymptotics.py", "* theta**2 - ", "* theta - ", "tests/test_theory_asymptotics.py", "boundary"),
    Mutation(T + "conserved.py", "return weight * product**2", "return 2 * weight * product**2", CONSERVED, "sharp"),
    Mutation(T + "conserved.py", "> 2 * np.log(product)", "> 3 * np.log(product)", CONSERVED, "ends"),
    Mutation(T + "soonest.py", "(mu / (2 * rate))", "(mu / rate)", "tests/test_theory_lifetime.py", "logarithm"),
    Mutation(T + "transience.py", "per_a * mu**2 / alpha", "2 * per_a * mu**2 / alpha", FORMS, "right_forms"),
    Mutation(T + "slow_manifold.py", "2 * sp.sqrt(MISSING[2]) * flow[1]", "3 * sp.sqrt(MISSING[2]) * flow[1]", SLOW),
    Mutation(
        D + "plateau.py", "-weights[m] * target * product", "-2 * weights[m] * target * product", PLATEAU, "algebra"
    ),
    Mutation(D + "plateau.py", "speed = 2 * rate", "speed = 3 * rate", PLATEAU, "algebra"),
    Mutation(D + "units.py", 'units["m_ciwl"] * r**2 / 2', 'units["m_ciwl"] * r**2 / 3', UNITS, "velocity"),
]


def passes(folder: Path, tests: str, chosen: str) -> bool:
    """Whether the tests pass in a folder, in a fork of this process."""
    child = os.fork()
    if child == 0:
        os.chdir(folder)
        sys.path.insert(0, str(folder))
        quiet = os.open(os.devnull, os.O_WRONLY)
        os.dup2(quiet, 1)
        os.dup2(quiet, 2)
        import pytest

        given = [tests, "-x", "-q", "-n", "0", *(["-k", chosen] if chosen else [])]
        os._exit(int(pytest.main(given)))
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def copied(into: Path) -> Path:
    """A copy of what is imported, with links to the rest."""
    for name in COPIED:
        shutil.copytree(ROOT / name, into / name, ignore=shutil.ignore_patterns("__pycache__", "out"))
    for path in ROOT.iterdir():
        if path.name not in COPIED and path.name != ".git":
            (into / path.name).symlink_to(path)
    return into


def mutated(folder: Path, mutation: Mutation) -> bool:
    """Whether the tests still pass with the change; the copy is as before afterwards."""
    path = folder / mutation.file
    text = path.read_text()
    if mutation.old not in text:
        raise ValueError(f"{mutation.file} does not hold {mutation.old!r} any more: renew MUTATIONS")
    path.write_text(text.replace(mutation.old, mutation.new, 1))
    try:
        return passes(folder, mutation.tests, mutation.chosen)
    finally:
        path.write_text(text)


def main(first: int = 0, last: int = len(MUTATIONS)) -> int:
    sys.dont_write_bytecode = True  # a mutated file must not meet the byte code of another one
    for library in ("sympy", "xarray", "scipy.integrate", "matplotlib.pyplot", "pytest"):
        __import__(library)
    missed, rows = [], MUTATIONS[first:last]
    with tempfile.TemporaryDirectory() as place:
        folder = copied(Path(place))
        chosen = dict.fromkeys((m.tests, m.chosen) for m in rows)
        if red := [f"{tests} -k {words!r}" for tests, words in chosen if not passes(folder, tests, words)]:
            raise SystemExit(f"these do not pass without a change: {', '.join(red)}")
        for mutation in rows:
            caught = not mutated(folder, mutation)
            missed += [] if caught else [mutation]
            print(
                "caught" if caught else "MISSED",
                mutation.file,
                repr(mutation.old),
                "->",
                repr(mutation.new),
                flush=True,
            )
    print(f"{len(rows) - len(missed)} of {len(rows)} changed coefficients are caught")
    return int(bool(missed))


if __name__ == "__main__":
    sys.exit(main(*map(int, sys.argv[1:])))
