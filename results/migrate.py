"""Turn the run folders of the old house (commit 2a8bc55) into today's format, in place; done twice it changes nothing.

    python results/migrate.py [RESULTS_DIR]

Every finished run: `protocol` is called `rule`; `tag` and `thop_macs_m` go; `changed`, the overridden settings, comes
from the old house's own code, and the folder's name from it; `training_version` is 1. A run by `released` or `printed`
loses the settings of `fast`, so that it is today's run. No number changes. Unfinished runs stay as they are.

What `fast` trained just as `equal` trains becomes a run of `equal`: the whole network for the epochs that `equal` gives
it, and one depth alone. Its depths.csv then has every depth of the architecture (the old one ended at that depth).
Single depths that differ in nothing else are joined into one search once depths 1 to k are there and k is the first
that met the goal, or the last of all, and no other depth is chosen (see below). Before that, and beyond k, each is a
run with first_depth = last_depth.

**Only the chosen depth's test accuracy is ever shown.** To choose, the depths of a row are seen together, whatever
their seed, precision and threads: the first whose validation accuracy meets the goal, rounded as a search rounds it
(with several seeds their mean, not rounded); if none does, the deepest; so also the only one there is. A joined search
shows that of its own choice. A run that stays single at another depth, or had more or fewer epochs than `equal` gives
(a check on the depth below), has null. To choose anew, put the old folders in the place of runs and start again.
"""

import dataclasses
import json
import shutil
import subprocess
import sys
import tempfile
from collections import defaultdict
from functools import partial
from itertools import accumulate
from pathlib import Path
from types import SimpleNamespace

import pandas as pd

from odnlib import metrics, models, recipes
from odnlib.architectures import ARCHITECTURES
from odnlib.data import DATASETS
from odnlib.files import ROOT, find_finished_runs, read_json, write_csv, write_json
from odnlib.recipes import SETTING_FIELDS, SETTINGS_OF_RULE, Recipe

OF_FAST = ("first_epochs", "carry_weights", "one_cycle")  # settings that are none any more
DROPPED = ["tag", "thop_macs_m"]
cells = partial(pd.read_csv, dtype=str, keep_default_na=False)  # as they were written
ITS_OVERRIDES = """
import json, sys; sys.path.insert(0, "old.zip")
from odnlib.recipes import Recipe
print(json.dumps([Recipe(**recorded).overridden for recorded in json.load(sys.stdin)]))"""


def overridden_then(recorded: list[dict]) -> list[dict]:
    """The overridden settings of old recipes, by the old house's own code."""
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run(["git", "archive", f"--output={folder}/old.zip", "2a8bc55", "odnlib"], cwd=ROOT, check=True)
        ask = {"cwd": folder, "input": json.dumps(recorded), "stdout": subprocess.PIPE, "text": True}
        return json.loads(subprocess.run([sys.executable, "-c", ITS_OVERRIDES], check=True, **ask).stdout)


def as_equal(recorded: dict) -> Recipe | None:
    """The recipe of rule `equal` that trains exactly what this old one trained, if there is one."""
    one_stage = [recorded.get(name) for name in ("one_cycle", "warmup_epochs", "finetune_epochs")] == [True, 0, 0]
    single, whole = recorded["first_depth"] == recorded["last_depth"], recorded["variant"] == "full"
    known = recorded["row"] in DATASETS and recorded["architecture"] in ARCHITECTURES
    if not (one_stage and known and (single or whole)):
        return None
    idle = ["depth_epochs"] if whole else ["full_epochs", "increment_rate_factor"]
    settings = {name: recorded[name] for name in SETTING_FIELDS if name in recorded and name not in idle}
    epochs = {} if whole else {"depth_epochs": recorded["first_epochs"] or recorded["depth_epochs"]}
    run = [recorded[name] for name in ("row", "variant", "profile")]
    recipe = recipes.resolve(*run, "equal", recorded["seed"], **settings | epochs)
    return None if whole and "full_epochs" in recipe.overridden else recipe


def planned(folder: Path, recorded: dict, changed: dict) -> tuple[Path, dict, dict]:
    """The folder's new place, its recipe.json, and what is overridden in it."""
    if equal := as_equal(recorded):
        return folder.with_name(equal.name), dataclasses.asdict(equal), equal.overridden
    fast = recorded["protocol"] not in SETTINGS_OF_RULE
    kept = {x: value for x, value in recorded.items() if value or x not in OF_FAST or fast}
    recipe = {"rule" if name == "protocol" else name: value for name, value in kept.items()}
    name = Recipe.name.fget(SimpleNamespace(**recipe, label=recipes.describe_settings(changed)))
    return folder.with_name(name), recipe, changed


def tried(folder: Path) -> pd.DataFrame:
    """depth, epochs and val_acc_pct of the depths that a run trained."""
    lines = pd.read_csv(folder / "depths.csv").dropna(subset="val_acc_pct")
    return lines[["depth", "epochs", "val_acc_pct"]]


def write_depths(folder: Path, recipe: dict, chosen: int, trained: pd.DataFrame) -> None:
    """depths.csv as a run of rule `equal` writes it, with every depth of the architecture."""
    shape, classes = DATASETS[recipe["row"]].image_shape, DATASETS[recipe["row"]].classes
    network = models.build(recipe["architecture"], shape[0], classes, recipe["width"])
    structures = pd.DataFrame(metrics.measure_every_depth(network, shape, network.max_depth))
    lines = structures.assign(warmup_val_acc_pct=None).merge(trained, "left", "depth")
    epochs = lines["epochs"].fillna(0).astype(int)
    write_csv(folder / "depths.csv", lines.assign(epochs=epochs, chosen=lines["depth"] == chosen))


def migrate(folder: Path, target: Path, recipe: dict, changed: dict) -> None:
    """Bring a run's folder into today's format; recipe.json, by which an old one is told, comes last."""
    recorded, made_by = read_json(folder / "result.json"), read_json(folder / "provenance.json")
    result = {name: recipe[name] for name in ("row", "variant", "profile", "rule", "seed")} | {"changed": changed}
    result |= {name: value for name, value in recorded.items() if name not in ("protocol", *DROPPED)}
    write_json(folder / "result.json", result)
    write_json(folder / "provenance.json", {"training_version": 1} | made_by)
    for path in [x for x in folder.glob("*.csv") if x.name not in ("epochs.csv", "timing.csv")]:
        table = cells(path).rename(columns={"protocol": "rule"})
        write_csv(path, table.drop(columns=DROPPED, errors="ignore"))
    if recipe["rule"] == "equal" and recipe["variant"] == "odn":
        write_depths(folder, recipe, result["depth"], tried(folder))
    folder.rename(target)
    write_json(target / "recipe.json", recipe)
    print(f"{folder.name} -> {target.name}")


def migrate_all(results_dir: Path) -> None:
    """Every run folder of the old house, and the lists that name them."""
    old = {file.parent: read_json(file) for file in sorted(results_dir.glob("*/runs/*/recipe.json"))}
    old = {x: recorded for x, recorded in old.items() if "protocol" in recorded and ".replaced" not in x.name}
    for folder in [x for x in old if not (x / "result.json").exists()]:
        print(f"{folder.name}: left as it is: unfinished, and only the old house can go on with it")
        del old[folder]
    changed = overridden_then(list(old.values())) if old else []
    plans = {x: planned(x, recorded, its) for (x, recorded), its in zip(old.items(), changed, strict=True)}
    if taken := [f"{x.name} -> {target}" for x, (target, *_) in plans.items() if target.exists() and target != x]:
        sys.exit("nothing was done, since these are there already; take one of the two away:\n" + "\n".join(taken))
    names = {folder.name: plan[0].name for folder, plan in plans.items()}
    for index in results_dir.glob("*/reuse.json") if plans else []:  # first, while the old names are still known
        studies = [{"rule" if k == "protocol" else k: v for k, v in x.items()} for x in read_json(index)["studies"]]
        write_json(index, {"studies": [{k: names.get(v, v) for k, v in x.items()} for x in studies]})
    for folder, plan in plans.items():
        migrate(folder, *plan)


def searches(results_dir: Path, *apart_from: str) -> list[list[SimpleNamespace]]:
    """The searches by `equal`, by depth, in groups that differ in their depths and in these settings only."""
    groups = defaultdict(list)
    compared = {"profile", "row", "seed", "images", *SETTING_FIELDS} - {"first_depth", "last_depth", *apart_from}
    for folder in find_finished_runs(results_dir, variant="odn"):
        run, made_by = recipes.read_run(folder), read_json(folder / "provenance.json")
        run.images, run.usual = made_by["data_sha256"], "depth_epochs" not in run.changed
        run.single = run.first_depth == run.last_depth and "code_hash" in made_by  # a depth alone, of the old house
        if run.rule == "equal":
            groups[str([getattr(run, name) for name in sorted(compared)])].append(run)
    return [sorted(group, key=lambda run: run.depth) for group in groups.values()]


def join(parts: list[SimpleNamespace]) -> None:
    """One search out of the runs of depths 1 to k, of which k is chosen; the parts go."""
    chosen = parts[-1]
    settings = {name: getattr(chosen, name) for name in SETTING_FIELDS if name not in ("first_depth", "last_depth")}
    recipe = recipes.resolve(chosen.row, "odn", chosen.profile, "equal", chosen.seed, **settings)
    folder = chosen.folder.with_name("joined.replaced")  # until it is whole, a name that none takes for a run's
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(chosen.folder, folder, ignore=shutil.ignore_patterns("log.txt", "checkpoint*"))
    for weights in [file for part in parts for file in part.folder.glob("depth*.safetensors")]:
        shutil.copy2(weights, folder)
    write_depths(folder, dataclasses.asdict(recipe), chosen.depth, pd.concat([tried(part.folder) for part in parts]))
    epochs = [cells(part.folder / "epochs.csv") for part in parts]  # all those of a depth cost the same
    tmacs = list(accumulate(float(table["train_tmacs"][0]) for table in epochs for _ in table.index))
    timing, numbers = [cells(part.folder / "timing.csv") for part in parts], range(1, len(tmacs) + 1)
    write_csv(folder / "epochs.csv", pd.concat(epochs).assign(epoch=numbers, train_tmacs=tmacs))
    write_csv(folder / "timing.csv", pd.concat(timing).assign(epoch=numbers))
    made_by = [read_json(part.folder / "provenance.json") for part in parts]
    spent = {"seconds": round(sum(part["seconds"] for part in made_by), 1), "train_tmacs": tmacs[-1]}
    origins = {"joined_from": [{"depth": depth} | of_part for depth, of_part in enumerate(made_by, 1)]}
    write_json(folder / "provenance.json", made_by[-1] | spent | origins)
    result = read_json(folder / "result.json") | {"changed": recipe.overridden, "epochs": len(tmacs)}
    write_json(folder / "result.json", result | {"train_tmacs": tmacs[-1]})
    write_json(folder / "recipe.json", dataclasses.asdict(recipe))
    folder.rename(chosen.folder.with_name(recipe.name))
    for part in parts:
        shutil.rmtree(part.folder)
        print(f"{part.name} joined into {recipe.name}")


def chosen_depth(runs: list[SimpleNamespace]) -> int:
    """The first depth that meets the goal, else the deepest that was tried; see above."""
    accuracies = pd.concat([tried(run.folder) for run in runs]).groupby("depth")["val_acc_pct"].apply(list)
    means = {d: sum(x) / len(x) if len(x) > 1 else round(x[0], runs[0].search_decimals) for d, x in accuracies.items()}
    return next((depth for depth, mean in means.items() if mean >= runs[0].goal_pct), max(means))


def main(results_dir: Path) -> None:
    migrate_all(results_dir)
    together = searches(results_dir, "seed", "images", "bfloat16", "threads")
    choices = {run.folder: chosen_depth(group) for group in together for run in group}
    for group in searches(results_dir):
        parts = [run for run in group if run.single and run.usual]
        last = next((run.depth for run in parts if run.met_goal), group[0].max_depth)
        whole = [run.depth for run in parts if run.depth <= last] == list(range(1, last + 1))
        if whole and choices[parts[0].folder] == last:
            join(parts[:last])
    for group in searches(results_dir, "seed", "images", "bfloat16", "threads"):
        depth = chosen_depth(group)
        for run in group:
            if run.single and not (run.usual and run.depth == depth) and run.test_acc_pct is not None:
                write_json(run.folder / "result.json", read_json(run.folder / "result.json") | {"test_acc_pct": None})
                print(f"{run.name}: test accuracy left out, as this is not the chosen depth")


if __name__ == "__main__":
    main(Path(*sys.argv[1:2] or [ROOT / "results"]))
