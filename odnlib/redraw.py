"""Every table and figure of a profile that comes from run folders, drawn again from them alone.

A notebook calls the one function that its own figures need; the comparison calls `everything`.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pandas as pd

from odnlib import plots, results, tables
from odnlib.architectures import ARCHITECTURES
from odnlib.paper import TABLE_1
from odnlib.plots import save
from odnlib.recipes import Recipe
from odnlib.studies import ablation, benchmark, compress, families, figures, reuse, trend
from odnlib.verdict import comparison


def row(odn: Recipe, full: Recipe, results_dir: Path) -> None:
    """Structure, choice and history of a row's search, history of its whole network."""
    to = results_dir / odn.profile / "figures"
    depths = pd.read_csv(results.run_folder(odn, results_dir) / "depths.csv")
    save(plots.structure(depths, odn, TABLE_1[odn.row]), to / f"{odn.name}-structure.png")
    save(plots.depth_choice(depths, odn, TABLE_1[odn.row]), to / f"{odn.name}-choice.png")
    for recipe in (odn, full):
        epochs = pd.read_csv(results.run_folder(recipe, results_dir) / "epochs.csv")
        save(plots.history(epochs, recipe), to / f"{recipe.name}-history.png")


def finished(results_dir: Path, profile: str) -> pd.DataFrame:
    """The finished runs of one profile (`comparison.load_runs`)."""
    runs = comparison.load_runs(results_dir, profile)
    return runs[runs["profile"] == profile] if len(runs) else pd.DataFrame(columns=[*comparison.GROUP, "seed"])


def rows(results_dir: Path, profile: str) -> None:
    """`row` for every search whose whole network was trained too, by the same settings.

    Figures that a row's notebook has just drawn are left as they are: the comparison follows those notebooks, and most
    of its time would go into drawing them a second time.
    """
    for _, pair in finished(results_dir, profile).groupby(["row", "protocol", "tag", "seed"], sort=False):
        folders = {run.variant: Path(run.folder) for run in pair.itertuples()}
        if set(folders) == {"odn", "full"}:
            odn, full = (results.read_recipe(folders[variant]) for variant in ("odn", "full"))
            names = [*(f"{odn.name}-{what}" for what in ("structure", "choice", "history")), f"{full.name}-history"]
            drawn = [results_dir / profile / "figures" / f"{name}.png" for name in names]
            sources = [*(folder / "result.json" for folder in folders.values()), Path(plots.__file__), Path(__file__)]
            if not all(map(Path.exists, drawn)) or min(map(written, drawn)) < max(map(written, sources)):
                row(odn, full, results_dir)


def written(path: Path) -> int:
    return path.stat().st_mtime_ns


def ablations(results_dir: Path, profile: str) -> dict[str, pd.DataFrame]:
    """Statistics and figure of all searches that were also made without warm-up; name of the table -> the table."""
    runs = finished(results_dir, profile)
    searches = {Path(run.folder).name: run.folder for run in runs[runs["variant"] == "odn"].itertuples()}
    pairs: dict[str, list[Recipe]] = {}
    for folder in searches.values():
        recipe = results.read_recipe(Path(folder))
        if recipe.warmup_epochs and dataclasses.replace(recipe, warmup_epochs=0).name in searches:
            pairs.setdefault(ablation.name(recipe), []).append(recipe)
    tables = {}
    for name, recipes in pairs.items():
        first, folder, lines = recipes[0], results_dir / profile, []
        for recipe in recipes:
            arms = {arm: dataclasses.replace(recipe, **settings).name for arm, settings in ablation.ARMS.items()}
            epochs = {arm: pd.read_csv(Path(searches[arms[arm]]) / "epochs.csv") for arm in arms}
            lines += [
                {"arm": arm, "seed": recipe.seed, **ablation.statistics(epochs[arm], recipe.goal_pct)} for arm in arms
            ]
            if recipe == first:
                save(figures.ablation(epochs, first), folder / "figures" / f"{name}.png")
        reason = comparison.why_not_comparable(dataclasses.asdict(first) | {"tag": first.tag})
        tables[name] = ablation.paired(pd.DataFrame(lines)).assign(row=first.row, not_comparable=reason)
        results.write_table(folder / f"{name}.csv", tables[name])
    return tables


def depths_by_dataset(results_dir: Path, profile: str) -> pd.DataFrame:
    """Depth needed per dataset, a table and for each study a figure; empty without such searches."""
    found = trend.searches(finished(results_dir, profile))
    needed = trend.table(found)
    if needed.empty:
        return needed
    results.write_table(results_dir / profile / "depth_by_dataset.csv", needed)
    strictest = needed[needed["tolerance_pct"] == trend.TOLERANCES_PCT[0]]
    for (protocol, settings), group in found.groupby(["protocol", "settings"], sort=False):
        at = strictest[(strictest["protocol"] == protocol) & (strictest["settings"] == settings)]
        first = results.read_recipe(Path(group["folder"].iloc[0]))
        figure = figures.depth_by_dataset(trend.curves(group), at, first)
        save(figure, results_dir / profile / "figures" / f"depth_by_dataset-{protocol}-{settings}.png")
    return needed


def search_costs(results_dir: Path, profile: str) -> pd.DataFrame:
    """What each search by `fast` and `released` cost whose networks of all depths were tested, and the whole network's
    training beside it.
    """
    costs = []
    for _, group in finished(results_dir, profile).groupby(["row", "tag"], sort=False):
        folders = [Path(run.folder) for run in group.itertuples() if run.protocol in ("fast", "released")]
        tested = [folder for folder in folders if (folder / "test_per_depth.csv").exists()]
        if {results.read_recipe(folder).protocol for folder in tested} == {"fast", "released"}:
            wanted = [folder for folder in folders if folder in tested or "-full-" in folder.name]
            costs.append(pd.DataFrame(benchmark.cost(results.read_recipe(folder), folder) for folder in wanted))
    if costs:
        results.write_table(results_dir / profile / "search_costs.csv", pd.concat(costs))
        equal = pd.concat([benchmark.equal_depths(lines) for lines in costs])
        results.write_table(results_dir / profile / "search_equal_depth.csv", equal)
    return pd.concat(costs) if costs else pd.DataFrame()


def benchmarks(folder: Path) -> None:
    """The figures of what `08_benchmark` measured."""
    for name, draw in {"benchmark": figures.ratios, "benchmark_scaling": figures.scaling}.items():
        if (folder / f"{name}.csv").exists():
            save(draw(pd.read_csv(folder / f"{name}.csv")), folder / "figures" / f"{name}.png")


def own(results_dir: Path, profile: str) -> None:
    """What each search on somebody's own images offers to choose from, and its history."""
    for file in results.files_of_runs(results_dir / profile, "front.csv"):
        recipe, to = results.read_recipe(file.parent), results_dir / profile / "figures"
        front, result = pd.read_csv(file), results.read_json(file.with_name("result.json"))
        choice = plots.depth_choice(front, recipe, recommended=tables.recommended(front, result))
        save(choice, to / f"{recipe.name}-choice.png")
        save(plots.history(pd.read_csv(file.with_name("epochs.csv")), recipe), to / f"{recipe.name}-history.png")


def other_networks(results_dir: Path, profile: str) -> None:
    """Searches with other architectures: families.csv and a figure for each study."""
    lines = families.table(finished(results_dir, profile))  # of this profile alone
    if lines.empty:
        return
    results.write_table(results_dir / profile / "families.csv", lines.drop(columns="folder"))
    for (_, _, settings), at in lines.groupby(["row", "protocol", "settings"], sort=False):
        first = results.read_recipe(Path(at["folder"].iloc[0]))
        usual = TABLE_1[first.row].architecture  # so that the caption names none of several
        first = dataclasses.replace(first, architecture=usual, last_depth=ARCHITECTURES[usual].depth)
        figure = figures.families(at, first)
        name = f"families-{first.row}-{first.protocol}-{settings}.png"
        save(figure, results_dir / profile / "figures" / name)


def compressions(results_dir: Path, profile: str) -> None:
    """Bytes and accuracy of every compressed network."""
    for recipe, lines in compress.studies(results_dir, profile):
        name = "-".join(filter(None, ("compression", recipe.row, recipe.protocol, recipe.tag)))
        save(figures.compression(lines, recipe), results_dir / profile / "figures" / f"{name}.png")
        results.write_table(results_dir / profile / f"{name}.csv", compress.answers(recipe, lines))


def reuses(results_dir: Path, profile: str) -> None:
    """Depths found elsewhere, and plain trainings: reuse.csv, reuse_answers.csv and a figure per study."""
    lines = reuse.table(results_dir, profile)
    if lines.empty:
        return
    results.write_table(results_dir / profile / "reuse.csv", lines)
    results.write_table(results_dir / profile / "reuse_answers.csv", reuse.answers(lines))
    for names, at in lines.groupby(["protocol", "settings"], sort=False):
        recipe = results.read_recipe(results_dir / profile / "runs" / at["search"].iloc[0])
        file = f"reuse-{'-'.join(filter(None, names))}.png"
        save(figures.reuse(at, recipe), results_dir / profile / "figures" / file)


def everything(results_dir: Path, profile: str) -> None:
    """All of the above for the runs of one profile."""
    for draw in (rows, ablations, depths_by_dataset, search_costs, own, other_networks, compressions, reuses):
        draw(results_dir, profile)
    benchmarks(results_dir / profile)
