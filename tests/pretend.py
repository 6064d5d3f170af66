"""Run folders as `experiment` would leave them, with chosen figures, for tests of what is computed from them."""

import dataclasses
from pathlib import Path

import pandas as pd

from odnlib.experiment import folder_of_run
from odnlib.files import write_csv, write_json
from odnlib.recipes import Recipe, resolve

STAGES = [("warmup", 0, 0.0), ("depth", 1, 98.5), ("depth", 2, 99.0), ("finetune", 2, 99.3)]
EPOCHS = pd.DataFrame(STAGES, columns=["stage", "depth", "best_val_acc_pct"])
EPOCHS = EPOCHS.assign(epoch=range(1, 5), val_acc_pct=EPOCHS["best_val_acc_pct"], val_loss=0.1, train_loss=1.0)
DEPTHS = pd.DataFrame({"depth": [1, 2, 8], "size_mb": [0.3, 0.61, 44.77], "val_acc_pct": [98.5, 99.4, None]})


def pretend_run(
    results_dir: Path, row: str = "mnist", variant: str = "odn", profile: str = "paper", rule: str = "released",
    seed: int = 0, *, depth: int = 2, accuracy: float = 99.31, met_goal: bool = True, training_version: int = 1,
    epochs: pd.DataFrame = EPOCHS, depths: pd.DataFrame = DEPTHS, **overrides: object,
) -> Path:  # fmt: skip
    """The folder of a finished run that nothing trained; a rule that there is no more will do."""
    recipe = resolve(row, variant, profile, "equal" if rule == "fast" else rule, seed, **overrides)
    named: Recipe = dataclasses.replace(recipe, rule=rule) if rule == "fast" else recipe
    folder = folder_of_run(named, results_dir)
    folder.mkdir(parents=True)
    result = {name: getattr(named, name) for name in ("row", "variant", "profile", "rule", "seed")}
    result |= {"changed": recipe.overridden, "depth": depth, "max_depth": recipe.last_depth, "met_goal": met_goal}
    result |= {"params": 149_322, "size_mb": 0.61, "macs_m": 117.36, "val_acc_pct": 99.4, "test_acc_pct": accuracy}
    made_by = {"training_version": training_version, "processor": "one", "commit": "c0ffee", "device": "cpu"}
    made_by |= {"code_unchanged_since_commit": True, "threads": 1, "start": "2026-01-01", "seconds": 1.0}
    write_json(folder / "recipe.json", dataclasses.asdict(named))
    write_json(folder / "result.json", result | {"test_images": 10_000, "epochs": len(epochs), "train_tmacs": 1.0})
    write_json(folder / "provenance.json", made_by)
    write_csv(folder / "epochs.csv", epochs)
    write_csv(folder / "depths.csv", depths)
    return folder
