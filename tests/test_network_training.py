"""Training: resumed runs, held weights, slowed weights, and the cache of finished experiments."""

import shutil
import threading
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from typer.testing import CliRunner

from toymodel.cli import app
from toymodel.network import runs as runs_module
from toymodel.network import tap
from toymodel.network.data import GaussianClasses, Sequences
from toymodel.network.experiments import SECOND_HALF, Experiment, Weights, all_experiments
from toymodel.network.runs import Runs, drawn
from toymodel.network.training import Rule, train_seeds

pytestmark = pytest.mark.slow

SMALL = {"classes": GaussianClasses(30, 5, 8, 0.5, 1.0), "steps": 40, "every": 10, "seeds": 2, "keep": (0, 20, 40)}
RULE = Rule(Sequences(), batch=16, evaluation_batch=32)


def experiment(network, **changes):
    options, rule = (), RULE
    if network == "transformer":
        options, rule = (("heads", 2), ("model", 8)), replace(RULE, factors=(("weights.labels", 0.0),))
    return Experiment(
        **{"name": f"{network}_small", "network": network, "rule": rule, "options": options, **SMALL, **changes}
    )


def runs_in(folder, *known):
    return Runs({e.name: e for e in known}, folder / "curves", folder / "checkpoints")


@pytest.mark.parametrize("network", ["disentangled", "transformer"])
def test_a_run_that_is_stopped_resumes_to_the_same_bits(network, tmp_path, monkeypatch):
    small = experiment(network)
    whole = runs_in(tmp_path / "whole", small).run(small)
    monkeypatch.setattr(runs_module, "SAVE_SECONDS", 0.0)
    train, calls = runs_module.train_seeds, []

    def stopped(*args, **kwargs):
        calls.append(int(kwargs["steps"]))
        if len(calls) == 4:  # of the first seed: one evaluation at the start, then two points
            raise KeyboardInterrupt
        return train(*args, **kwargs)

    monkeypatch.setattr(runs_module, "train_seeds", stopped)
    half = runs_in(tmp_path / "half", small)
    with pytest.raises(KeyboardInterrupt):
        half.run(small)
    resumed = half.run(small)
    first, second = [0, 10, 10], [0, 10, 10, 10, 10]  # of 40 steps of the first seed, 20 were done before
    assert calls == [0, 10, 10, 10, *first, *second]
    assert whole.identical(resumed)
    assert float(abs(whole.loss.diff("step")).min()) > 0


def test_seeds_may_be_added_to_a_file_and_are_those_of_a_whole_run(tmp_path):
    small = experiment("transformer")
    runs = runs_in(tmp_path, small)
    first = runs.run(replace(small, seeds=1))
    assert first.seed.size == 1 and runs.there(small) == (0,) and not runs.finished(small)
    both = runs.run(small)
    assert runs.finished(small) and both.sel(seed=[0]).identical(first)
    assert both.identical(runs_in(tmp_path / "whole", small).run(small))


def test_a_longer_training_goes_on_from_a_shorter_one(tmp_path, monkeypatch):
    small = experiment("transformer", seeds=1)
    runs, train, calls = runs_in(tmp_path, small), runs_module.train_seeds, []
    shorter = replace(small, steps=20, keep=(0, 20))
    runs_in(tmp_path, shorter).run(shorter)
    assert not runs.finished(small)
    monkeypatch.setattr(runs_module, "train_seeds", lambda *a, **k: calls.append(k["steps"]) or train(*a, **k))
    longer = runs.run(small)
    assert sum(calls) == 20 and longer.identical(runs_in(tmp_path / "whole", small).run(small))


def test_side_by_side_is_one_after_another(tmp_path):
    """What a GPU does, on the CPU: the same numbers up to the order of sums."""
    small = experiment("transformer")
    given, options = drawn(small), dict(edits=(), rule=small.rule, steps=20)

    def trained(states, exemplars, keys, **how):
        return train_seeds(jax.tree.map(jnp.copy, states), exemplars=exemplars, keys=keys, **options, **how)[0].network

    alone = [trained(*jax.tree.map(lambda x, i=i: x[i : i + 1], given)) for i in range(2)]
    one = jax.tree.map(lambda *seeds: np.concatenate(seeds), *alone)
    other = trained(*given, side_by_side=True)
    for left, right in zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True):
        np.testing.assert_allclose(left, right, atol=1e-4)


def test_a_start_with_the_memory_of_adam_goes_on_as_if_undisturbed(tmp_path):
    source = experiment("transformer", keep=(0, 20))
    plain, kept = (
        replace(source, name=f"memory_{memory}", start=Weights(source.name, 20, memory=memory), steps=10, keep=(0, 10))
        for memory in (False, True)
    )
    runs = runs_in(tmp_path, source, plain, kept)
    given = runs.states(source, 20, (0,))
    for each in (plain, kept):
        runs.run(each)
        begin, end = (runs.states(each, step, (0,)) for step in (0, 10))
        np.testing.assert_array_equal(begin.network.read_out, given.network.read_out)
        moments = [float(np.abs(leaf).max()) for leaf in jax.tree.leaves(begin.memory)]
        assert (max(moments) > 0) == (each is kept)
        assert np.abs(end.network.read_out - begin.network.read_out).max() > 0


def test_heads_and_weights_may_be_ablated_and_attention_forbidden_throughout(tmp_path):
    small = experiment("transformer", ablated=("layer1.heads:1", "weights.positions"), forbidden=("previous",))
    runs = runs_in(tmp_path, small)
    curves = runs.run(small)
    assert float(curves.previous_token.max()) == 0 and float(curves.own_token.max()) > 0.3
    begin, end = runs.weights(small, 0), runs.weights(small, 40)
    moved = np.abs(begin.layers["layer1"].output - end.layers["layer1"].output).max((0, 2, 3))
    assert moved[1] == 0 < moved[0]
    assert_zero_and_as_it_was(runs, small, "positions")


def test_what_is_ablated_is_zero_and_stays_as_it_was(tmp_path):
    small = experiment("disentangled", ablated=("weights.M",))
    runs = runs_in(tmp_path, small)
    runs.run(small)
    assert_zero_and_as_it_was(runs, small, "M")


def assert_zero_and_as_it_was(runs, small, part):
    begin, end = runs.weights(small, 0), runs.weights(small, 40)
    np.testing.assert_array_equal(getattr(begin, part), getattr(end, part))
    states, exemplars, _ = drawn(small)
    one = jax.tree.map(lambda w: w[0], (states.network, runs.edits(small)))
    _, seen = tap.run(one[0], exemplars[0, :3, 0], jnp.array([0, 1]), one[1])
    assert not np.any(seen[f"weights.{part}"])


def test_finished_experiments_are_read_and_changed_ones_run_again(tmp_path, monkeypatch):
    small = experiment("disentangled")
    made = runs_in(tmp_path, small).run(small)
    changed = replace(small, rule=replace(RULE, rate=2e-3))
    assert not runs_in(tmp_path, changed).finished(changed)
    monkeypatch.setattr(runs_module, "train_seeds", lambda *_, **__: pytest.fail("trained although it is there"))
    assert runs_in(tmp_path, small).run(small).identical(made)


def test_several_at_once_are_what_they_are_one_by_one(tmp_path):
    first = experiment("disentangled")
    other = replace(first, name="other", start=Weights(first.name, 20), keep=())
    third = replace(first, name="third", steps=20, keep=())
    known = (first, other, third)
    together = list(runs_in(tmp_path / "together", *known).run_many(known, jobs=2))
    one_by_one = runs_in(tmp_path / "alone", *known)
    assert {each.name for each, _ in together} == {each.name for each in known}
    assert all(curves.identical(one_by_one.run(each)) for each, curves in together)
    with pytest.raises(ValueError, match="must come after those that they need: other before"):
        list(one_by_one.run_many((other, first)))
    with pytest.raises(ValueError, match="jobs must be at least 1, got 0"):
        list(one_by_one.run_many(known, jobs=0))


def test_two_that_need_one_source_train_it_once(tmp_path, monkeypatch):
    source = experiment("disentangled")
    others = [replace(source, name=name, start=Weights(source.name, 20), keep=()) for name in ("one", "other")]
    runs_in(tmp_path, source).run(source)
    shutil.rmtree(tmp_path / "checkpoints")  # as in a clone, where curves are there and weights are not
    before = (tmp_path / "curves" / f"{source.name}.nc").stat().st_mtime_ns
    train, trained = Runs.train, []

    def noted(self, each, seeds, *args):
        trained.append((each.name, seeds))
        return train(self, each, seeds, *args)

    monkeypatch.setattr(Runs, "train", noted)
    assert len(list(runs_in(tmp_path, source, *others).run_many(others))) == 2
    assert sorted(trained) == sorted((name, (seed,)) for name in (source.name, "one", "other") for seed in (0, 1))
    assert (tmp_path / "curves" / f"{source.name}.nc").stat().st_mtime_ns == before


def test_again_trains_again_and_weights_that_are_lost_are_made_again(tmp_path, monkeypatch):
    small = experiment("disentangled")
    runs = runs_in(tmp_path, small)
    made, calls = runs.run(small), []
    train = runs_module.train_seeds
    monkeypatch.setattr(runs_module, "train_seeds", lambda *a, **k: calls.append(k["steps"]) or train(*a, **k))
    assert runs.run(small, again=True).identical(made) and sum(calls) == small.seeds * small.steps
    lost = tmp_path / "checkpoints" / runs.made_of(small) / "1" / "20.eqx"
    weights = runs.weights(small, 20)
    lost.unlink()
    assert jax.tree.all(jax.tree.map(np.array_equal, runs.weights(small, 20), weights)) and lost.exists()


def test_an_error_stops_the_others_with_a_checkpoint(tmp_path, monkeypatch):
    long, failing = experiment("disentangled", steps=10**6, keep=(), seeds=1), experiment("disentangled", name="fails")
    both = runs_in(tmp_path, long, failing)
    run, begun = Runs.run_seeds, threading.Event()
    train = runs_module.train_seeds

    def fails(self, each, *args):
        if each is failing:
            begun.wait()
            raise OSError("disk full")
        return run(self, each, *args)

    def training(*args, **kwargs):
        begun.set()
        return train(*args, **kwargs)

    monkeypatch.setattr(Runs, "run_seeds", fails)
    monkeypatch.setattr(runs_module, "train_seeds", training)
    with pytest.raises(OSError, match="disk full"):
        list(both.run_many((long, failing)))
    left = list(tmp_path.glob("checkpoints/*/latest_*.eqx"))
    assert len(left) == 1 and both.stop.is_set()


@pytest.mark.parametrize("network", ["disentangled", "transformer"])
def test_held_weights_stay_and_the_others_start_where_they_are_told(network, tmp_path):
    source = experiment(network)
    held = Weights(source.name, 40, SECOND_HALF[network])
    other = source.on("other", "icl", held=held, start=Weights(source.name, 20), keep=(0, 40))
    runs = runs_in(tmp_path, source, other)
    runs.run(other)  # runs the source first
    begin, end = runs.weights(other, 0), runs.weights(other, 40)
    np.testing.assert_array_equal(jax.tree.leaves(begin)[0], jax.tree.leaves(runs.weights(source, 20))[0])
    held_name, free = ("W", "V") if network == "disentangled" else ("read_out", "positions")
    np.testing.assert_array_equal(getattr(begin, held_name), getattr(end, held_name))
    assert np.all(np.abs(getattr(begin, free) - getattr(end, free)).max((1, 2)) > 0)
    edit = runs.edits(other)[0]
    assert edit.donor is not None
    np.testing.assert_array_equal(getattr(edit.donor, held_name), getattr(runs.weights(source, 40), held_name))


def test_a_factor_of_zero_stops_a_weight(tmp_path):
    small = experiment("transformer")
    runs = runs_in(tmp_path, small)
    runs.run(small)
    begin, end = runs.weights(small, 0), runs.weights(small, 40)
    np.testing.assert_array_equal(begin.labels, end.labels)
    assert np.abs(begin.layers["layer2"].output - end.layers["layer2"].output).max() > 0


def test_one_step_of_descent_is_rate_times_gradient_times_factor():
    rule = Rule(Sequences(), optimiser="sgd", rate=0.5, factors=(("weights*key*", 0.1),))
    weights = {"key": jnp.ones(2), "gain": jnp.ones(3)}
    transformation = rule.transformation()
    updates, _ = transformation.update(weights, transformation.init(weights))
    np.testing.assert_allclose(updates["gain"], -0.5)
    np.testing.assert_allclose(updates["key"], -0.05)


def test_seeds_have_their_own_classes_weights_and_sequences():
    small = experiment("disentangled")
    states, exemplars, keys = drawn(small)
    assert np.abs(exemplars[0] - exemplars[1]).min() > 0
    assert np.abs(states.network.V[0] - states.network.V[1]).min() > 0
    assert not np.array_equal(jax.random.key_data(keys[0]), jax.random.key_data(keys[1]))
    means = exemplars[0].mean(1)
    assert abs(np.corrcoef(means.ravel(), states.network.M[0].ravel())[0, 1]) < 0.3  # apart from the weights' draws


def test_every_source_comes_before_it_is_needed_and_keeps_what_is_needed():
    known = all_experiments()
    before = set()
    for name, each in known.items():
        for weights in each.sources():
            source = known[weights.source]
            assert weights.source in before
            assert weights.step in source.keep
            assert source.seeds >= each.seeds
            assert source.classes == each.classes
            assert source.options == each.options
        before.add(name)


def test_the_command_trains_lists_and_names_what_is_wrong(tmp_path, monkeypatch):
    small = experiment("disentangled")
    monkeypatch.setattr(runs_module, "all_experiments", lambda: {small.name: small})
    folders = ["--curves", str(tmp_path / "n"), "--checkpoints", str(tmp_path / "c")]
    call = lambda *args: CliRunner().invoke(app, ["train", *args, *folders])  # noqa: E731
    assert "missing disentangled_small" in call().output
    assert "at step 40, accuracy among the labels in context: icl 0." in call("--all").output
    listed = call().output
    assert "there   disentangled_small" in listed and f"curves in {tmp_path}" in listed
    assert "give names or --all" in str(call("--all", "disentangled_small").exception)
    assert "there is no experiment 'another', but disentangled_small" in str(call("another").exception)
    (tmp_path / "n" / f"{small.name}.nc").write_bytes(b"no file of curves")
    assert "missing disentangled_small" in call().output
    with pytest.raises(ValueError, match=r"is damaged .*`toymodel train disentangled_small` makes it anew"):
        Runs({small.name: small}, tmp_path / "n", tmp_path / "c").read(small.name)
    plain = tmp_path / "plain"
    plain.touch()
    with pytest.raises(OSError, match="cannot write to the folder"):
        Runs({small.name: small}, plain / "curves", tmp_path / "c").run(small)


def test_wrong_inputs_are_named(tmp_path):
    small = experiment("disentangled")
    for changes, message in [
        ({"network": "mlp"}, "network must be one of"),
        ({"every": 7}, "steps must be a multiple of every, got 40 and 7"),
        ({"keep": (15,)}, "keep must be multiples of every = 10"),
        ({"forbidden": ("next",)}, "forbidden must be some of"),
        ({"seeds": 0}, "seeds must be at least 1, got 0"),
        ({"held": Weights(small.name, 20)}, "source must be another experiment"),
    ]:
        with pytest.raises(ValueError, match=message):
            replace(small, **changes)
    for changes, message in [
        ({"optimiser": "lion"}, "optimiser must be one of"),
        ({"rate": 0.0}, "rate must be > 0"),
        ({"rate": np.nan}, "rate must be > 0 and finite"),
        ({"batch": 0}, "batch must be at least 1"),
        ({"evaluation_batch": 0}, "evaluation_batch must be at least 1"),
    ]:
        with pytest.raises(ValueError, match=message):
            replace(RULE, **changes)
    runs = runs_in(tmp_path, small)
    with pytest.raises(ValueError, match="step of disentangled_small must be one of"):
        runs.weights(small, 30)
    with pytest.raises(FileNotFoundError, match="toymodel train disentangled_small` makes it"):
        runs.read(small.name)
    made = runs.run(small)
    changed = replace(small, rule=replace(RULE, rate=2e-3))
    with pytest.raises(ValueError, match=r"made by another declaration of .*makes it anew"):
        runs_in(tmp_path, changed).read(small.name)
    assert runs.read(small.name).identical(made)
    slowed = replace(RULE, factors=(("weights.X", 0.5),))
    with pytest.raises(ValueError, match=r"factors: 'weights.X' matches no weight"):
        runs.run(replace(small, rule=slowed))
    more = replace(small, name="more", start=Weights(small.name, 20), seeds=3)
    with pytest.raises(ValueError, match="seeds of more must be at most 2, those of disentangled_small"):
        runs.run(more)
    other = replace(small, name="other", start=Weights(small.name, 20), classes=GaussianClasses(29, 5, 8, 0.5, 1.0))
    with pytest.raises(ValueError, match="classes of other must be that of disentangled_small"):
        runs.run(other)
