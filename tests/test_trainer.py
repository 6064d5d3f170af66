"""Algorithm 1: the plateau rule, the one-pass warm-up, the order of stages, and resuming."""

import copy
import dataclasses

import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file
from torch import nn

from odnlib import trainer
from odnlib.checkpoint import Keeper
from odnlib.models import MultiExitNetwork, statistics_of_separate_passes
from odnlib.schedule import ALL_DEPTHS, Plateau, Stage, next_stage, one_cycle
from odnlib.trainer import Training, TrainingDiverged, train
from tests.conftest import tiny_recipe


def plateau_by_hand(accuracies: list[float], rate: float, decay: float, every: int) -> list[tuple[float, int, float]]:
    """Section III-C once more, from the whole past at every epoch: best, epochs since, rate."""
    states = []
    for epoch in range(1, len(accuracies) + 1):
        past = [0.0, *accuracies[:epoch]]
        best = max(past)
        since = epoch - past.index(best)
        decays = sum(
            (e - [0.0, *accuracies[:e]].index(max([0.0, *accuracies[:e]]))) % every == 0
            for e in range(1, epoch + 1)
            if [0.0, *accuracies[:e]].index(max([0.0, *accuracies[:e]])) != e
        )
        states.append((best, since, rate * decay**decays))
    return states


@settings(max_examples=200, deadline=None)
@given(
    st.lists(st.floats(0, 100).map(lambda x: round(x, 1)), max_size=40),
    st.sampled_from([0.6, 0.4, 1.0]),
    st.integers(1, 7),
)
def test_plateau_rule(accuracies, decay, every):
    plateau, seen = Plateau(0.1), []
    for accuracy in accuracies:
        plateau.update(accuracy, decay, every)
        seen.append((plateau.best_pct, plateau.epochs_without_improvement, plateau.rate))
    expected = plateau_by_hand(accuracies, 0.1, decay, every)
    assert [x[:2] for x in seen] == [x[:2] for x in expected]
    assert [x[2] for x in seen] == pytest.approx([x[2] for x in expected], rel=1e-9)


def same_state(ours, plain):
    """Weights and running statistics agree; the counters of batches, which nothing reads, may not."""
    for (name, tensor), other in zip(ours.state_dict().items(), plain.state_dict().values(), strict=True):
        if tensor.is_floating_point():
            torch.testing.assert_close(tensor, other, rtol=1e-10, atol=1e-10, msg=name)


def test_warmup_in_one_pass_equals_separate_passes(float64):
    """The released rule written plainly: per batch one pass per depth, deepest first, then one step."""
    torch.manual_seed(0)
    ours = MultiExitNetwork("resnet18", 1, 3, width=2)
    plain = copy.deepcopy(ours)
    batches = [(torch.randn(6, 1, 8, 8), torch.randint(3, (6,))) for _ in range(3)]
    optimizers = [torch.optim.SGD(n.parameters(), 0.1, momentum=0.9, weight_decay=5e-4) for n in (ours, plain)]
    for images, labels in batches:
        optimizers[0].zero_grad()
        with statistics_of_separate_passes(ours):
            trainer.exits_loss(ours.forward_all(images), labels).backward()
        optimizers[0].step()
        optimizers[1].zero_grad()
        for depth in range(plain.max_depth, 0, -1):
            nn.functional.cross_entropy(plain(images, depth), labels).backward()
        optimizers[1].step()
        for ours_at, plain_at in zip(ours.parameters(), plain.parameters(), strict=True):
            torch.testing.assert_close(ours_at.grad, plain_at.grad, rtol=1e-10, atol=1e-10)
    same_state(ours, plain)
    assert ours.blocks[7].body[1].momentum == 0.1


def test_an_epoch_of_warmup_is_that_warmup(tiny_data, tmp_path, float64):
    """`Training` itself, not only its parts, does what separate passes do."""
    recipe = tiny_recipe(last_depth=8, warmup_epochs=1)
    training = Training(recipe, tiny_data, tmp_path)
    plain = copy.deepcopy(training.network).train()
    training.epoch()
    optimizer = torch.optim.SGD(plain.parameters(), recipe.warmup_rate, momentum=0.9, weight_decay=5e-4)
    random = trainer.generator(recipe.seed, "warmup", ALL_DEPTHS, 0)
    for images, labels in tiny_data.train.shuffled_batches(recipe.batch_size, False, random):
        optimizer.zero_grad()
        for depth in range(8, 0, -1):
            nn.functional.cross_entropy(plain(images, depth), labels).backward()
        optimizer.step()
    same_state(training.network, plain)


def test_order_of_stages():
    recipe = tiny_recipe(first_depth=1, last_depth=3, rate=0.1, increment_rate_factor=0.5, target_pct=90.0)
    warmup = next_stage(recipe, None, False)
    first = next_stage(recipe, warmup, False)
    second = next_stage(recipe, first, False)
    last = next_stage(recipe, second, False)
    tuned = next_stage(recipe, second, True)
    assert [(s.kind, s.depth, s.rate, s.start) for s in (warmup, first, second, last, tuned)] == [
        ("warmup", ALL_DEPTHS, 0.001, "initial"),
        ("depth", 1, 0.1, "warm"),
        ("depth", 2, 0.05, "warm"),
        ("finetune", 3, 0.05, "warm"),  # the largest depth is fine-tuned at once
        ("finetune", 2, 0.0, "current"),  # the run simply goes on
    ]
    assert (first.decimals, first.goal_pct, tuned.decimals) == (1, 90.0, 2)
    assert next_stage(recipe, tuned, False) is None
    full = next_stage(tiny_recipe("full"), None, False)
    assert (full.kind, full.depth, full.start) == ("full", 3, "initial")
    assert next_stage(tiny_recipe("full"), full, False) is None


def run_through(recipe, data, folder, stop_after=None):
    """Train; `stop_after` epochs the process is gone, as after a kill."""
    folder.mkdir(exist_ok=True)
    training = Training(recipe, data, folder)
    for count, _ in enumerate(Keeper(training).epochs(), start=1):
        if count == stop_after:
            return None
    return training


def test_search_deepens_until_the_goal(tiny_data, tmp_path):
    training = run_through(tiny_recipe(last_depth=5, target_pct=100.0), tiny_data, tmp_path)
    stages = list(dict.fromkeys((record["stage"], record["depth"]) for record in training.records))
    assert stages == [("warmup", 0), ("depth", 1), ("depth", 2), ("depth", 3), ("depth", 4), ("finetune", 5)]
    easy = run_through(tiny_recipe(target_pct=1.0), tiny_data, tmp_path / "easy")
    stages = list(dict.fromkeys((record["stage"], record["depth"]) for record in easy.records))
    assert stages == [("warmup", 0), ("depth", 1), ("finetune", 1)]
    assert [r["stage_epoch"] for r in easy.records if r["stage"] == "depth"] == [1]


def test_each_depth_starts_from_the_warmed_up_weights(tiny_data, tmp_path):
    training = Training(tiny_recipe(), tiny_data, tmp_path)
    records = train(training)
    while next(records)["stage"] != "depth":
        pass
    warm = copy.deepcopy(training.warm)
    for _ in records:
        pass
    training.enter(Stage("depth", 2, 0.01, 1, "warm", 1))
    assert all(torch.equal(tensor, warm[name]) for name, tensor in training.network.state_dict().items())
    assert {p.name for p in tmp_path.glob("*.safetensors")} == {
        "depth01.safetensors", "depth02.safetensors", "network.safetensors"
    }  # fmt: skip


def test_blocks_and_heads_beyond_the_depth_do_not_move(tiny_data, tmp_path):
    training = Training(tiny_recipe(warmup_epochs=1, rate=0.1), tiny_data, tmp_path)
    list(zip(train(training), range(1), strict=False))  # the warm-up
    trainer.leave(training)
    training.enter(Stage("depth", 2, 0.1, 1, "warm", 1))
    before = copy.deepcopy(training.network.state_dict())
    training.epoch()
    for name, tensor in training.network.state_dict().items():
        part, _, rest = name.partition(".")
        index = int(rest.split(".")[0])
        active = part == "stem" or (part == "blocks" and index < 2) or (part == "heads" and index == 1)
        if not active:
            assert torch.equal(tensor, before[name]), name
        elif tensor.is_floating_point():
            assert not torch.equal(tensor, before[name]), name


def test_zero_epochs_change_nothing(tiny_data, tmp_path):
    none = dataclasses.replace(tiny_recipe(), warmup_epochs=0, depth_epochs=0, finetune_epochs=0)
    training = Training(none, tiny_data, tmp_path)
    before = copy.deepcopy(training.network.state_dict())
    assert list(train(training)) == []
    assert all(torch.equal(tensor, before[name]) for name, tensor in training.network.state_dict().items())
    assert torch.equal(training.best_network().head.weight, before["heads.2.weight"])


def test_carry_best_makes_a_new_depth_catch_up(tiny_data, tmp_path):
    training = Training(tiny_recipe(carry_best=True), tiny_data, tmp_path)
    training.plateau = Plateau(0.1, best_pct=70.0)
    training.keep_best(0.0)
    trainer.leave(training)
    training.enter(Stage("depth", 2, 0.1, 1, "warm", 1))
    assert training.plateau.best_pct == 70.0
    training.plateau.update(60.0, 0.6, 5)
    assert training.plateau.epochs_without_improvement == 1


def test_the_best_network_is_kept(tiny_data, tmp_path):
    """The network written is the one after the epoch with the best validation accuracy, not the last one."""
    training = run_through(tiny_recipe("full", full_epochs=6, rate=0.3), tiny_data, tmp_path)
    best = max(record["val_acc_pct"] for record in training.records)
    network = training.best_network()
    accuracy = trainer.metrics.evaluate(network, tiny_data.validation)[1][0]
    assert accuracy == pytest.approx(best)
    saved = load_file(tmp_path / "network.safetensors")
    assert all(torch.equal(tensor, saved[name]) for name, tensor in network.state_dict().items())


def test_patience_ends_a_stage_and_fine_tuning_goes_on(tiny_data, tmp_path):
    """No epoch can improve on 0 % with a rate of 0: a depth ends after `patience`; the next starts at half the rate."""
    recipe = tiny_recipe(warmup_epochs=0, patience=3, depth_epochs=None, finetune_epochs=None, rate=0.0, decay_every=2)
    training = run_through(recipe, tiny_data, tmp_path)
    for _, stage in pd.DataFrame(training.records).groupby("depth"):
        first_best = stage["val_acc_pct"].idxmax()
        assert len(stage) == first_best - stage.index[0] + 1 + 3


def test_rates_decay_and_restart(tiny_data, tmp_path, monkeypatch):
    """Validation never improves: x 0.6 after every 2nd epoch; the second depth starts at half the first one's rate."""
    monkeypatch.setattr(trainer.metrics, "evaluate", lambda *_: (1.0, [0.0]))
    recipe = tiny_recipe(rate=0.1, patience=5, depth_epochs=None, finetune_epochs=2, decay_every=2, warmup_rate=0.001)
    rates = pd.DataFrame(run_through(recipe, tiny_data, tmp_path).records).groupby("depth")["rate"].apply(list)
    assert rates[ALL_DEPTHS] == pytest.approx([0.001, 0.0005])
    assert rates[1] == pytest.approx([0.1, 0.1, 0.06, 0.06, 0.036])
    assert rates[2] == pytest.approx([0.05, 0.05, 0.03, 0.03, 0.018])


def test_fine_tuning_keeps_optimiser_and_plateau(tiny_data, tmp_path):
    training = Training(tiny_recipe(target_pct=1.0), tiny_data, tmp_path)
    records = train(training)
    while next(records)["stage"] != "depth":
        pass
    optimizer, plateau = training.optimizer, training.plateau
    assert next(records)["stage"] == "finetune"
    assert training.optimizer is optimizer
    assert training.plateau is plateau


def test_non_finite_loss(tiny_data, tmp_path):
    recipe = tiny_recipe("full", rate=10.0, weight_decay=1.0, momentum=1.0, full_epochs=200, patience=500)
    with pytest.raises(TrainingDiverged, match=r"not finite in stage full, depth 3, epoch \d+ at rate .*smaller rate"):
        run_through(recipe, tiny_data, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize(("variant", "protocol"), [("odn", "released"), ("full", "released"), ("odn", "fast")])
def test_interrupted_equals_uninterrupted(variant, protocol, tiny_data, tmp_path):
    """Stopped after every single epoch in turn, resumed, the records and the weights are the same bits."""
    budget = {"first_epochs": 3} if protocol == "fast" else {}
    recipe = tiny_recipe(variant, protocol=protocol, last_depth=3, rate=0.1, patience=3, finetune_epochs=3, **budget)
    whole = run_through(recipe, tiny_data, tmp_path / "whole")
    for epochs in range(1, len(whole.records) + 1):
        folder = tmp_path / str(epochs)
        assert run_through(recipe, tiny_data, folder, stop_after=epochs) is None
        resumed = run_through(recipe, tiny_data, folder)
        pd.testing.assert_frame_equal(pd.DataFrame(resumed.records), pd.DataFrame(whole.records), check_exact=True)
        for name, tensor in resumed.best_network().state_dict().items():
            assert torch.equal(tensor, whole.best[name]), name


def test_same_seed_same_records_another_seed_others(tiny_data, tmp_path):
    records = [
        run_through(tiny_recipe(seed=seed), tiny_data, tmp_path / str(i)).records for i, seed in enumerate([0, 0, 1])
    ]
    assert records[0] == records[1]
    assert records[0] != records[2]


def test_one_cycle_rises_once_and_falls_to_nothing():
    rates = [one_cycle(0.1, step / 100) for step in range(101)]
    assert (rates[0], max(rates), rates[20]) == (0.0, pytest.approx(0.1), pytest.approx(0.1))
    assert rates[:21] == sorted(rates[:21])
    assert rates[20:] == sorted(rates[20:], reverse=True)
    assert rates[100] == 0.0


def test_fast_carries_the_prefix_on(tiny_data, tmp_path):
    """A cycle of its own per depth; each starts where the depth before ended; no fine-tuning; the last is searched."""
    budget = {"first_epochs": 3, "depth_epochs": 2, "finetune_epochs": 0, "warmup_epochs": 0}
    training = Training(tiny_recipe(protocol="fast", **budget), tiny_data, tmp_path)
    ended: dict[int, dict] = {}
    for record in train(training):
        if record["stage_epoch"] == 1 and record["depth"] > 1:
            untouched = ended[record["depth"] - 1]["heads.0.bias"]
            assert torch.equal(training.network.heads[0].bias, untouched)  # no return to the initial weights
        ended[record["depth"]] = copy.deepcopy(training.network.state_dict())
    epochs = pd.DataFrame(training.records)
    assert epochs.groupby("depth").size().to_dict() == {1: 3, 2: 2, 3: 2}
    assert set(epochs["stage"]) == {"depth"}
    assert (epochs.loc[epochs["stage_epoch"] == 1, "rate"] == 0).all()


def test_fast_runs_its_cycle_to_the_end(tiny_data, tmp_path):
    budget = {"warmup_epochs": 0, "first_epochs": 4, "finetune_epochs": 0}
    training = run_through(tiny_recipe(protocol="fast", target_pct=1.0, **budget), tiny_data, tmp_path)
    assert [(r["depth"], r["stage_epoch"]) for r in training.records] == [(1, e) for e in range(1, 5)]


def test_autocast_keeps_float32_weights_and_nearly_the_loss(tiny_data, tmp_path):
    losses = []
    for bfloat16 in (False, True):
        training = Training(tiny_recipe("full", bfloat16=bfloat16), tiny_data, tmp_path)
        losses.append(training.epoch()["train_loss"])
        assert {tensor.dtype for tensor in training.network.parameters()} == {torch.float32}
    assert losses[0] != losses[1]
    assert losses[0] == pytest.approx(losses[1], rel=0.05)
