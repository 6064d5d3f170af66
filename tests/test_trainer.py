"""A run under way: the one-pass warm-up, what is kept, and going on after an interruption."""

import copy

import pandas as pd
import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from odnlib import metrics, models, trainer
from odnlib.models import statistics_of_separate_passes
from odnlib.search import find_depth
from odnlib.trainer import ALL_DEPTHS, TrainingDiverged
from tests.conftest import tiny_recipe, tiny_run


class Killed(BaseException):
    """The process is gone."""


def run_through(recipe, data, folder, stop_after=None):
    """Search; after `stop_after` epochs the process is gone."""

    def listener(_, record):
        if record["epoch"] == stop_after:
            raise Killed

    run = tiny_run(recipe, data, folder, [listener])
    try:
        find_depth(run)
    except Killed:
        return None
    return run


def same_state(ours, plain):
    """Weights and running statistics agree; the counters of batches, which nothing reads, may not."""
    for (name, tensor), other in zip(ours.state_dict().items(), plain.state_dict().values(), strict=True):
        if tensor.is_floating_point():
            torch.testing.assert_close(tensor, other, rtol=1e-10, atol=1e-10, msg=name)


def test_warmup_in_one_pass_equals_separate_passes(float64):
    """The released rule written plainly: per batch one pass per depth, deepest first, then one step."""
    torch.manual_seed(0)
    ours = models.build("resnet18", 1, 3, width=2)
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
    """`Run` itself, not only its parts, does what separate passes do."""
    recipe = tiny_recipe(last_depth=8, warmup_epochs=1)
    run = tiny_run(recipe, tiny_data, tmp_path)
    plain = copy.deepcopy(run.network).train()
    run.begin(ALL_DEPTHS)
    run.epoch("warmup", ALL_DEPTHS, 0, lambda part: recipe.warmup_rate)
    optimizer = torch.optim.SGD(plain.parameters(), recipe.warmup_rate, momentum=0.9, weight_decay=5e-4)
    random = trainer.generator(recipe.seed, "warmup", ALL_DEPTHS, 0)
    for images, labels in tiny_data.train.shuffled_batches(recipe.batch_size, False, random):
        optimizer.zero_grad()
        for depth in range(8, 0, -1):
            nn.functional.cross_entropy(plain(images, depth), labels).backward()
        optimizer.step()
    same_state(run.network, plain)


def test_the_best_network_is_kept(tiny_data, tmp_path):
    """The network written is the one after the epoch with the best validation accuracy, not the last one."""
    run = run_through(tiny_recipe("full", full_epochs=6, rate=0.3), tiny_data, tmp_path)
    network = run.network.truncate(3)
    network.load_state_dict(load_file(tmp_path / "network.safetensors"))
    accuracy = metrics.evaluate(network, tiny_data.validation)[1][0]
    assert accuracy == pytest.approx(max(record["val_acc_pct"] for record in run.records))
    assert run.accuracy_pct == {3: accuracy}


def test_by_products_are_left_behind(tiny_data, tmp_path):
    run_through(tiny_recipe(), tiny_data, tmp_path)
    assert {path.stem for path in tmp_path.glob("*.safetensors")} == {"depth01", "depth02", "network"}


def test_non_finite_loss(tiny_data, tmp_path):
    recipe = tiny_recipe("full", rate=10.0, weight_decay=1.0, momentum=1.0, full_epochs=200, patience=500)
    with pytest.raises(TrainingDiverged, match=r"not finite in whole network, epoch \d+.*smaller rate"):
        run_through(recipe, tiny_data, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize(("variant", "rule"), [("odn", "released"), ("full", "released"), ("odn", "equal")])
def test_interrupted_equals_uninterrupted(variant, rule, tiny_data, tmp_path):
    """Gone after every single epoch in turn, gone on with: the records and the weights are the same bits."""
    more = {} if rule == "equal" else {"patience": 3, "finetune_epochs": 3}
    recipe = tiny_recipe(variant, rule=rule, last_depth=3, rate=0.1, **more)
    whole = run_through(recipe, tiny_data, tmp_path / "whole")
    for epochs in range(1, len(whole.records)):
        folder = tmp_path / str(epochs)
        assert run_through(recipe, tiny_data, folder, stop_after=epochs) is None
        resumed = run_through(recipe, tiny_data, folder)
        pd.testing.assert_frame_equal(pd.DataFrame(resumed.records), pd.DataFrame(whole.records), check_exact=True)
        assert resumed.accuracy_pct == whole.accuracy_pct
        assert resumed.warmup_accuracy_pct == whole.warmup_accuracy_pct
        for path in (tmp_path / "whole").glob("*.safetensors"):
            assert (folder / path.name).read_bytes() == path.read_bytes(), path.name


@pytest.mark.slow
def test_interrupted_within_an_epoch_it_goes_on_there(tiny_data, tmp_path, monkeypatch):
    """After every single step and every batch of validation images in turn."""
    monkeypatch.setattr(trainer, "SAVE_EVERY", 0.0)
    recipe = tiny_recipe(last_depth=2, batch_size=24, warmup_epochs=1, depth_epochs=1, finetune_epochs=1)
    whole = tiny_run(recipe, tiny_data, tmp_path / "whole")
    between_steps, calls = whole.between_steps, []
    whole.between_steps = lambda: (calls.append(0), between_steps())
    find_depth(whole)
    for stop_at in range(len(calls)):
        gone = tiny_run(recipe, tiny_data, tmp_path / str(stop_at))
        left = iter(range(stop_at))

        def stop(real=gone.between_steps, left=left):
            real()
            if next(left, None) is None:
                raise Killed

        gone.between_steps = stop
        with pytest.raises(Killed):
            find_depth(gone)
        resumed = run_through(recipe, tiny_data, tmp_path / str(stop_at))
        assert resumed.records == whole.records
        assert all(torch.equal(tensor, whole.best[name]) for name, tensor in resumed.best.items())


def test_replay_touches_no_tensor_until_the_records_end(tiny_data, tmp_path):
    """Neither weights nor files: those of later epochs are there already."""
    run_through(tiny_recipe(), tiny_data, tmp_path, stop_after=5)
    by_product = (tmp_path / "depth01.safetensors").stat().st_mtime_ns
    run = tiny_run(tiny_recipe(), tiny_data, tmp_path)
    initial, seen = copy.deepcopy(run.network.state_dict()), []
    restore = run.restore
    run.restore = lambda: (seen.append(copy.deepcopy(run.network.state_dict())), restore())
    find_depth(run)
    assert all(torch.equal(tensor, initial[name]) for name, tensor in seen[0].items())
    assert (tmp_path / "depth01.safetensors").stat().st_mtime_ns == by_product
    assert len(seen) == 1


def test_a_replay_that_goes_another_way_is_refused(tiny_data, tmp_path):
    run_through(tiny_recipe(), tiny_data, tmp_path, stop_after=5)
    run = tiny_run(tiny_recipe(), tiny_data, tmp_path)
    run.saved["records"][2]["val_acc_pct"] = 99.0
    with pytest.raises(AssertionError, match="another way"):
        find_depth(run)


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
        run.begin(3)
        losses.append(run.epoch("full", 3, 0, lambda part: 0.02)["train_loss"])
        assert {tensor.dtype for tensor in run.network.parameters()} == {torch.float32}
    assert losses[0] != losses[1]
    assert losses[0] == pytest.approx(losses[1], rel=0.05)
