"""Notebooks 01 to 05, one per dataset of Table I: settings, structure, outcome, figures, comparison with the paper."""

from pathlib import Path

import pandas as pd
import torch

from odnlib import data, experiment, metrics, models, recipes
from odnlib.files import ROOT
from odnlib.paper import TABLE_1
from odnlib.progress import shorten_path
from odnlib.recipes import Recipe
from studies import common, plots
from studies.notebook import NotebookTrainer

MEANING_OF_SETTING = {  # settings that tell rows and rules apart
    "target_pct": "validation accuracy to reach, in %",
    "tolerance_pct": "... within so many points: the goal",
    "batch_size": "images in a batch",
    "warmup_epochs": "epochs of the warm-up, which trains all depths at once",
    "rate": "learning rate of the first depth and of the whole network",
    "increment_rate_factor": "... times this: of every later depth",
    "decay_every": "epochs without improvement after which the rate decays",
    "decay": "... by this factor",
    "patience": "epochs without improvement that mean convergence",
    "carry_best": "a new depth must beat the best accuracy of the one before, as in the authors' logs",
    "depth_epochs": "most epochs at one depth (none: until converged)",
    "finetune_epochs": "... of fine-tuning",
    "full_epochs": "... of the whole network",
}
PLATEAU_SETTINGS = {"warmup_epochs", "increment_rate_factor", "decay_every", "decay", "patience", "finetune_epochs"}
PLATEAU_SETTINGS |= {"carry_best"}
TITLE_OF_QUANTITY = {"depth": "depth", "params_m": "params (M)", "size_mb": "size (MB)", "macs_m": "MACs (M)"}
TITLE_OF_QUANTITY |= {"test_acc_pct": "test accuracy (%)"}


def tabulate_settings(recipe: Recipe) -> pd.DataFrame:
    """Return the settings of a recipe that its search uses as a table by setting: value, meaning, overridden (bool)."""
    shown = {x: y for x, y in MEANING_OF_SETTING.items() if not (recipe.one_cycle and x in PLATEAU_SETTINGS)}
    told = [(name, str(getattr(recipe, name)).lower(), shown[name], name in recipe.overridden) for name in shown]
    return pd.DataFrame(told, columns=["setting", "value", "meaning", "overridden"]).set_index("setting")


def has_real_images(row: str, data_dir: Path) -> bool:
    """Return whether the real images of a dataset (`row`) lie in `data_dir`, without reading or downloading them."""
    places = {"svhn": "train_32x32.mat", "cifar10": "cifar-10-batches-py"}  # others: the class
    return (data_dir / places.get(row, data.DATASETS[row].source)).exists()


def draw_samples(place: NotebookTrainer, *planned: Recipe) -> None:
    """Draw sample images if a run of the recipes is still to be trained, or if they are at hand; otherwise say so."""
    folders = {recipe: experiment.folder_of_run(recipe, place.results_dir) for recipe in planned}
    needed = place.since or any(experiment.status_of_run(*run) != "finished" for run in folders.items())
    if needed or (not planned[0].embedded and has_real_images(planned[0].row, place.data_dir)):
        plots.draw_samples(place.image_loader(planned[0])().train)
    else:
        print("Both networks are trained: what follows is drawn from their folders, and no images are loaded.")


def draw_gained_images(row: str, data_dir: Path, most: int = 2000, drawn: int = 10) -> None:
    """Draw `drawn` validation images that the published network of one depth gets wrong and that of the next one right,
    and print the counts among the first `most`; without networks or real images say so.
    """
    title = TABLE_1[row].title
    networks = sorted(next(iter(sorted(ROOT.glob(f"results/*/networks/{row}"))), ROOT).glob("depth[0-9][0-9].onnx"))[:2]
    if len(networks) < 2:
        return print(f"Left out here: for {title} there are no published networks of two depths.")
    if not has_real_images(row, data_dir):
        return print(f"Left out here: it needs the real images, and {shorten_path(data_dir)} has none of {title}.")
    from studies import export  # onnxruntime takes a second

    split = data.load_splits(recipes.resolve(row, profile=networks[0].parts[-4], rule="equal"), data_dir).validation
    images, labels = split.images[:most], split.labels[:most]
    first, then = (torch.tensor(export.run_onnx(network, images)).argmax(1) for network in networks)
    below, above = (int(network.stem[-2:]) for network in networks)
    better, worse = (first != labels) & (then == labels), (first == labels) & (then != labels)
    counts = f"{int(better.sum())} right that depth {below} has wrong, and {int(worse.sum())} the other way round"
    print(f"Of {len(labels):,} validation images depth {above} has {counts} ({networks[0].parent.relative_to(ROOT)}).")
    names, chosen = split.dataset.class_names or range(split.dataset.classes), better.nonzero().flatten()[:drawn]
    titles = [f"{names[labels[i]]}\ndepth {below}:\n{names[first[i]]}" for i in chosen]
    plots.draw_images([images[i] for i in chosen], titles)


def measure_depths(recipe: Recipe) -> pd.DataFrame:
    """Return a table of a recipe's network, untrained, cut at every depth: depth, params, size_mb, macs_m."""
    dataset = data.DATASETS[recipe.row]
    network = models.build(recipe.architecture, dataset.image_shape[0], dataset.classes, recipe.width)
    return pd.DataFrame(metrics.measure_every_depth(network, dataset.image_shape, recipe.last_depth))


def describe_outcome(odn_folder: Path, full_folder: Path) -> str:
    """Return what a finished search found as sentences; if nothing by `equal`, also the depth as good as the whole."""
    odn, full = map(recipes.read_run, (odn_folder, full_folder))
    depths = pd.read_csv(odn_folder / "depths.csv")
    has = f"has {odn.val_acc_pct:.2f} % of the validation images right"
    if odn.met_goal:
        has += " after fine-tuning" * (odn.rule != "equal")
        return f"Depth {odn.depth} of {odn.max_depth} is the first to meet the goal of {odn.goal_pct:g} %: it {has}."
    text = f"No depth met the goal of {odn.goal_pct:g} %. The last one tried, {odn.depth} of {odn.max_depth}, {has}."
    near = depths.loc[depths["val_acc_pct"] >= full.val_acc_pct - 0.5, "depth"]
    if odn.rule == "equal" and len(near):
        as_good = f"depth {full.depth}, trained alike ({full.val_acc_pct:.2f} %)"
        text += f" The smallest depth within half a point of {as_good} is {near.min()}."
    return text


def compare_with_paper(odn_folder: Path, full_folder: Path) -> pd.DataFrame:
    """Return Table I's quantities of a search and its whole network as a table: measured, in the paper, and the
    difference where the two can be compared.
    """
    odn, full = recipes.read_run(odn_folder), recipes.read_run(full_folder)
    printed, values, measured = TABLE_1[odn.row], [], f"measured ({odn.profile})"
    for run, paper in (odn, printed.odn), (full, printed.full):
        run.params_m = run.params / 1e6
        values += [(run.variant, y, getattr(run, x), getattr(paper, x)) for x, y in TITLE_OF_QUANTITY.items()]
    saved_pct = 100 * (1 - odn.size_mb / full.size_mb)
    values.append(("odn", "size reduction (%)", saved_pct, printed.size_reduction_pct))
    table = pd.DataFrame(values, columns=["variant", "quantity", measured, "paper"]).set_index(["variant", "quantity"])
    if common.why_not_comparable_to_paper(odn, set()):
        return table.rename(columns={"paper": "paper (full width, real images)"})
    return table.assign(difference=table[measured] - table["paper"])


def save_figures(odn_folder: Path, *full_folder: Path) -> None:
    """Save structure, depth choice and history of a finished search, and its whole network's history, in figures/."""
    folder, odn = odn_folder.parents[1] / "figures", recipes.read_run(odn_folder)
    depths, printed = pd.read_csv(odn_folder / "depths.csv"), TABLE_1[odn.row]
    plots.save_figure(
        plots.draw_structure(depths, odn, printed),
        folder / f"{odn.row}-{odn.architecture}-width_{odn.width}-structure.png",
    )
    if depths["val_acc_pct"].count() > 1:  # else there was no choice
        plots.save_figure(plots.draw_depth_choice(depths, odn, printed), folder / f"{odn.name}-choice.png")
    for run in map(recipes.read_run, (odn_folder, *full_folder)):
        figure = plots.draw_history(pd.read_csv(run.folder / "epochs.csv"), run)
        if run.variant == "odn" and plots.draw_authors_curves(figure.axes, run):
            figure.legends[0].remove()
            plots.legend_above(figure, 4)
        plots.save_figure(figure, folder / f"{run.name}-history.png")


def write_results(results_dir: Path, profile: str) -> None:
    """Call `save_figures` for a profile's searches that have a whole network or are comparable, if out of date."""
    runs = common.read_finished_runs(results_dir, profile)
    for _, pair in runs.groupby(["row", "rule", "label", "seed"]) if len(runs) else ():
        odn, *full = pair.sort_values("variant", ascending=False).itertuples()
        searched = odn.variant == "odn" and odn.first_depth == 1 and odn.test_acc_pct > 0
        if full or (searched and not odn.not_comparable):
            last = odn.folder.parents[1] / "figures" / f"{(full or [odn])[0].name}-history.png"  # the one saved last
            sources = [run.folder / "result.json" for run in (odn, *full)] + [Path(plots.__file__)]
            if not last.exists() or last.stat().st_mtime < max(source.stat().st_mtime for source in sources):
                save_figures(odn.folder, *(run.folder for run in full))
