"""A run under way: the one-pass warm-up, what is kept, going on after an interruption, where a depth begins."""

import copy
import functools
import math
import shutil
from contextlib import suppress

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from odnlib import checkpoint, metrics, trainer
from odnlib.search import train_variant
from odnlib.trainer import ALL_DEPTHS, Run
from tests.conftest import Killed, killed_after, same, tiny, tiny_recipe, tiny_run


def run_through(recipe, data, folder, stop_after=None):
    """Search; after `stop_after` epochs the process is gone."""
    run = tiny_run(recipe, data, folder, [killed_after(stop_after)])
    with suppress(Killed):
        train_variant(run)
    return run


def test_warmup_in_one_pass_equals_separate_passes(tiny_data, tmp_path, float64):
    """The released rule written plainly: per batch one pass per depth, deepest first, then one step."""
    recipe = tiny_recipe(last_depth=8, warmup_epochs=1, warmup_rate=0.1)
    run = tiny_run(recipe, tiny_data, tmp_path)
    plain = copy.deepcopy(run.network).train()
    run.begin_depth(ALL_DEPTHS)
    run.epoch("warmup", ALL_DEPTHS, 0, lambda part: recipe.warmup_rate)
    optimizer = torch.optim.SGD(plain.parameters(), recipe.warmup_rate, momentum=0.9, weight_decay=5e-4)
    random = trainer.seeded_generator(recipe.seed, "warmup", ALL_DEPTHS, 0)
    for images, labels in tiny_data.train.shuffled_batches(recipe.batch_size, False, random):
        optimizer.zero_grad()
        for depth in range(8, 0, -1):
            nn.functional.cross_entropy(plain(images, depth), labels).backward()
        optimizer.step()
    for (name, tensor), expected in zip(run.network.state_dict().items(), plain.state_dict().values(), strict=True):
        if tensor.is_floating_point():  # the counters of batches, which nothing reads, may differ
            torch.testing.assert_close(tensor, expected, rtol=1e-10, atol=1e-10, msg=name)
    for weights, expected in zip(run.network.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(weights.grad, expected.grad, rtol=1e-10, atol=1e-10)
    assert run.network.blocks[7].body[1].momentum == 0.1


def test_the_best_network_is_kept(tiny_data, tmp_path):
    """The network written is the one after the epoch with the best validation accuracy, not the last one."""
    run = run_through(tiny_recipe("full", full_epochs=6, rate=0.3), tiny_data, tmp_path)
    network = run.network.truncate(3)
    network.load_state_dict(load_file(tmp_path / "network.safetensors"))
    accuracy = metrics.evaluate(network, tiny_data.validation)[1][0]
    assert accuracy == pytest.approx(max(record["val_acc_pct"] for record in run.records))
    assert run.accuracy_pct == {3: accuracy}


@pytest.mark.slow
def test_interrupted_within_an_epoch_it_goes_on_there(tiny_data, tmp_path, monkeypatch):
    """After every single step and every batch of validation images in turn."""
    monkeypatch.setattr(trainer, "SAVE_EVERY_SECONDS", 0.0)
    recipe = tiny_recipe(last_depth=2, batch_size=24, warmup_epochs=1, depth_epochs=1, finetune_epochs=1)
    whole, copies = tiny_run(recipe, tiny_data, tmp_path / "whole"), []
    notify_and_save_if_due = whole.notify_and_save_if_due

    def as_if_killed_here():
        notify_and_save_if_due()
        copies.append(shutil.copytree(whole.folder, tmp_path / str(len(copies))))

    whole.notify_and_save_if_due = as_if_killed_here
    train_variant(whole)
    for folder in copies:
        resumed = run_through(recipe, tiny_data, folder)
        assert resumed.records == whole.records
        assert same(resumed.best, whole.best)


def test_replay_touches_no_tensor_until_the_records_end(tiny_data, tmp_path):
    """Neither weights nor files: those of later epochs are there already."""
    run_through(tiny_recipe(), tiny_data, tmp_path, stop_after=5)
    by_product = (tmp_path / "depth01.safetensors").stat().st_mtime_ns
    run = tiny_run(tiny_recipe(), tiny_data, tmp_path)
    initial, seen = copy.deepcopy(run.network.state_dict()), []
    restore = run.restore_checkpoint
    run.restore_checkpoint = lambda: (seen.append(copy.deepcopy(run.network.state_dict())), restore())
    train_variant(run)
    assert same(seen[0], initial)
    assert (tmp_path / "depth01.safetensors").stat().st_mtime_ns == by_product
    assert len(seen) == 1


def test_a_replay_that_goes_another_way_is_refused(tiny_data, tmp_path):
    run_through(tiny_recipe(), tiny_data, tmp_path, stop_after=5)
    run = tiny_run(tiny_recipe(), tiny_data, tmp_path)
    run.saved["records"][2]["val_acc_pct"] = 99.0
    with pytest.raises(AssertionError, match="another way"):
        train_variant(run)


@pytest.mark.parametrize("name", ["stem.0.weight", "stem.1.running_var"])
def test_a_state_that_is_not_of_numbers_is_not_kept(name, tiny_data, tmp_path):
    run = run_through(tiny_recipe(), tiny_data, tmp_path, stop_after=3)
    before = (tmp_path / checkpoint.NEWEST_FILE).read_bytes()
    run.network.state_dict()[name][0] = math.inf
    with pytest.raises(trainer.TrainingDiverged):
        run.save_checkpoint()
    assert (tmp_path / checkpoint.NEWEST_FILE).read_bytes() == before


@pytest.mark.slow
def test_same_seed_same_records_another_seed_others(tiny_data, tmp_path):
    records = [
        run_through(tiny_recipe(seed=seed), tiny_data, tmp_path / str(i)).records for i, seed in enumerate([0, 0, 1])
    ]
    assert records[0] == records[1]
    assert records[0] != records[2]


def test_autocast_keeps_float32_weights_and_nearly_the_loss(tiny_data, tmp_path):
    losses = []
    for bfloat16 in (False, True):
        run = tiny_run(tiny_recipe("full", bfloat16=bfloat16), tiny_data, tmp_path / str(bfloat16))
        run.begin_depth(3)
        losses.append(run.epoch("full", 3, 0, lambda part: 0.02)["train_loss"])
        assert {tensor.dtype for tensor in run.network.parameters()} == {torch.float32}
    assert losses[0] != losses[1]
    assert losses[0] == pytest.approx(losses[1], rel=0.05)


@pytest.fixture(scope="module")
def watch(tmp_path_factory):
    """Train the tiny search; by (stage, depth, number) weights and momenta before every epoch, and weights after it."""

    @functools.cache
    def train(**settings):
        run = tiny_run(tiny_recipe(rate=0.1, **settings), tiny(), tmp_path_factory.mktemp("run"))
        before, after, train_epoch = {}, {}, run.train_epoch

        def watched(*place_and_rate):
            *place, _ = place_and_rate
            momenta = [state["momentum_buffer"] for state in run.optimizer.state.values()]
            before[*place] = copy.deepcopy(run.network.state_dict()), momenta
            train_epoch(*place_and_rate)
            after[*place] = copy.deepcopy(run.network.state_dict())

        run.train_epoch = watched
        train_variant(run)
        return before, after

    return train


def test_every_depth_begins_from_the_warmed_up_weights(watch):
    before, after = watch()
    for stage, depth in (("depth", 1), ("depth", 2), ("finetune", 3)):
        assert same(before[stage, depth, 0][0], after["warmup", ALL_DEPTHS, 1]), f"depth {depth}: other weights"


def test_no_momentum_is_kept_across_depths(watch):
    before, _ = watch()
    assert before["depth", 2, 0][1] == [], "depth 2 begins with the optimiser of depth 1"
    assert before["depth", 2, 1][1] != []


def test_fine_tuning_goes_on_from_the_last_weights_and_their_momentum(watch, monkeypatch):
    """Not from the kept best ones, here spoilt (released code: the run simply goes on)."""
    keep_best = Run.keep_best

    def spoilt(run, *measured):
        keep_best(run, *measured)
        run.best = {name: torch.zeros_like(tensor) for name, tensor in run.best.items()}

    monkeypatch.setattr(Run, "keep_best", spoilt)
    before, after = watch(target_pct=1.0)
    assert same(before["finetune", 1, 0][0], after["depth", 1, 0]), "fine-tuning began from other weights"
    assert before["finetune", 1, 0][1] != [], "fine-tuning began with a new optimiser"


def test_equal_training_begins_every_depth_from_the_initial_weights(watch):
    before, _ = watch(rule="equal", depth_epochs=2)
    assert same(before["depth", 1, 0][0], before["depth", 2, 0][0])
    assert before["depth", 2, 0][1] == []


def test_blocks_and_heads_beyond_the_depth_do_not_move(watch):
    before, after = watch()
    for name, tensor in after["depth", 2, 0].items():
        part, _, rest = name.partition(".")
        index = int(rest.split(".")[0])
        active = part == "stem" or (part == "blocks" and index < 2) or (part == "heads" and index == 1)
        unchanged = torch.equal(tensor, before["depth", 2, 0][0][name])
        assert unchanged or active, name
        assert not (unchanged and active and tensor.is_floating_point()), name
