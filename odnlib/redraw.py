"""Every table and figure of a profile that comes from run folders, drawn again from them alone.

A notebook calls the one function that its own figures need; the comparison calls `everything`.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pandas as pd
from matplotlib.figure import Figure

from odnlib import ablation, benchmark, comparison, plots, results, trend
from odnlib.paper import TABLE_1
from odnlib.recipes import Recipe


def save(figure: Figure, path: Path) -> Path:
    plots.save(figure, path)
    plots.plt.close(figure)
    return path


def row(odn: Recipe, full: Recipe, results_dir: Path) -> None:
    """Structure, choice and history of a row's search, history of its whole network."""
    figures = results_dir / odn.profile / "figures"
    depths = pd.read_csv(results.run_folder(odn, results_dir) / "depths.csv")
    save(plots.structure(depths, odn, TABLE_1[odn.row]), figures / f"{odn.name}-structure.png")
    save(plots.depth_choice(depths, odn, TABLE_1[odn.row]), figures / f"{odn.name}-choice.png")
    for recipe in (odn, full):
        epochs = pd.read_csv(results.run_folder(recipe, results_dir) / "epochs.csv")
        save(plots.history(epochs, recipe), figures / f"{recipe.name}-history.png")


def rows(runs: pd.DataFrame, results_dir: Path) -> None:
    """`row` for every search whose whole network was trained too, by the same settings."""
    for _, pair in runs.groupby([*comparison.GROUP[:1], *comparison.GROUP[2:], "seed"], sort=False):
        by_variant = {run.variant: results.read_recipe(Path(run.folder)) for run in pair.itertuples()}
        if set(by_variant) == {"odn", "full"}:
            row(by_variant["odn"], by_variant["full"], results_dir)


def ablations(runs: pd.DataFrame, results_dir: Path) -> dict[str, pd.DataFrame]:
    """Statistics and figure of all searches that were also made without warm-up; name of the table -> the table."""
    searches = {Path(folder).name: folder for folder in runs.loc[runs["variant"] == "odn", "folder"]}
    pairs: dict[str, list[Recipe]] = {}
    for folder in searches.values():
        recipe = results.read_recipe(Path(folder))
        if recipe.warmup_epochs and dataclasses.replace(recipe, warmup_epochs=0).name in searches:
            pairs.setdefault(ablation.name(recipe), []).append(recipe)
    tables = {}
    for name, recipes in pairs.items():
        first, folder, lines = recipes[0], results_dir / recipes[0].profile, []
        for recipe in recipes:
            arms = {arm: dataclasses.replace(recipe, **settings).name for arm, settings in ablation.ARMS.items()}
            epochs = {arm: pd.read_csv(Path(searches[arms[arm]]) / "epochs.csv") for arm in arms}
            lines += [
                {"arm": arm, "seed": recipe.seed, **ablation.statistics(epochs[arm], recipe.goal_pct)} for arm in arms
            ]
            if recipe == first:
                save(plots.ablation(epochs, first), folder / "figures" / f"{name}.png")
        reason = comparison.why_not_comparable(dataclasses.asdict(first) | {"tag": first.tag})
        tables[name] = ablation.paired(pd.DataFrame(lines)).assign(row=first.row, not_comparable=reason)
        results.write_csv(folder / f"{name}.csv", tables[name])
    return tables


def depths_by_dataset(runs: pd.DataFrame, results_dir: Path) -> pd.DataFrame:
    """Depth needed per dataset, a table for each profile and a figure for each setting; empty without such searches."""
    found = trend.searches(runs)
    needed = trend.table(found)
    if needed.empty:
        return needed
    for profile, lines in needed.groupby("profile", sort=False):
        results.write_csv(results_dir / profile / "depth_by_dataset.csv", lines)
    strictest = needed[needed["tolerance_pct"] == trend.TOLERANCES_PCT[0]]
    for (profile, settings), group in found.groupby(["profile", "settings"], sort=False):
        at = strictest[(strictest["profile"] == profile) & (strictest["settings"] == settings)]
        first = results.read_recipe(Path(group["folder"].iloc[0]))
        figure = plots.depth_by_dataset(trend.curves(group), at, first)
        save(figure, results_dir / profile / "figures" / f"depth_by_dataset-{settings}.png")
    return needed


def search_costs(runs: pd.DataFrame, results_dir: Path) -> pd.DataFrame:
    """What each search cost whose networks of all depths were tested, and what the whole network beside it cost."""
    costs = []
    for _, group in runs.groupby(["profile", "row", "tag"], sort=False):
        folders = [Path(folder) for folder in group["folder"]]
        if group["protocol"].nunique() == 2 and any((folder / "test_per_depth.csv").exists() for folder in folders):
            costs += [benchmark.cost(results.read_recipe(folder), folder) for folder in folders]
    costs = pd.DataFrame(costs)
    for profile, lines in costs.groupby("profile", sort=False) if len(costs) else ():
        results.write_csv(results_dir / profile / "search_costs.csv", lines)
        results.write_csv(results_dir / profile / "search_equal_depth.csv", benchmark.equal_depths(lines))
    return costs


def benchmarks(folder: Path) -> None:
    """The figures of what `08_benchmark` measured."""
    for name, draw in {"benchmark": plots.ratios, "benchmark_scaling": plots.scaling}.items():
        if (folder / f"{name}.csv").exists():
            save(draw(pd.read_csv(folder / f"{name}.csv")), folder / "figures" / f"{name}.png")


def everything(results_dir: Path, profile: str) -> None:
    """All of the above for the runs of one profile."""
    runs = comparison.load_runs(results_dir, profile)
    if len(runs):
        runs = runs[runs["profile"] == profile]
        for draw in (rows, ablations, depths_by_dataset, search_costs):
            draw(runs, results_dir)
    benchmarks(results_dir / profile)
