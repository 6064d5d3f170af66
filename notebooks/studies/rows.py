"""Notebooks 01 to 05, one per dataset of Table I: settings, structure, outcome, figures, comparison with the paper."""

from pathlib import Path

import pandas as pd
import torch
from matplotlib.figure import Figure

from odnlib import data, experiment, metrics, models, recipes
from odnlib.files import ROOT
from odnlib.paper import TABLE_1
from odnlib.progress import shorten_path
from odnlib.recipes import Recipe
from studies import common, plots, reference
from studies.notebook import Workplace

SHOWN = {  # settings that tell rows and rules apart
    "target_pct": "validation accuracy to reach, in %",
    "tolerance_pct": "... within so many points: the goal",
    "batch_size": "images in a batch",
    "warmup_epochs": "epochs of the warm-up, which trains all depths at once",
    "rate": "learning rate of the first depth and of the whole network",
    "increment_rate_factor": "... times this: of every later depth",
    "decay_every": "epochs without improvement after which the rate decays",
    "decay": "... by this factor",
    "patience": "epochs without improvement that mean convergence",
    "depth_epochs": "most epochs at one depth (none: until converged)",
    "finetune_epochs": "... of fine-tuning",
    "full_epochs": "... of the whole network",
}
PLATEAU = {"warmup_epochs", "increment_rate_factor", "decay_every", "decay", "patience", "finetune_epochs"}
TITLES = {"depth": "depth", "params_m": "params (M)", "size_mb": "size (MB)", "macs_m": "MACs (M)"}
TITLES["test_acc_pct"] = "test accuracy (%)"


def settings(recipe: Recipe) -> pd.DataFrame:
    """Return the settings that a search uses as a table: name, value, meaning, whether overridden."""
    names = [name for name in SHOWN if not (recipe.one_cycle and name in PLATEAU)]
    lines = [(name, str(getattr(recipe, name)).lower(), SHOWN[name], name in recipe.overridden) for name in names]
    return pd.DataFrame(lines, columns=["setting", "value", "meaning", "overridden"]).set_index("setting")


def images_here(row: str, data_dir: Path) -> bool:
    """Return whether a row's real images lie in `data_dir`, without reading or downloading them."""
    places = {
        "svhn": "train_32x32.mat",
        "cifar10": "cifar-10-batches-py",
    }  # others: the class
    return (data_dir / places.get(row, data.DATASETS[row].source)).exists()


def samples(place: Workplace, *planned: Recipe) -> None:
    """Draw sample images if they are needed, as a run is still to be trained, or at hand; otherwise say so."""
    folders = {recipe: experiment.folder_of_run(recipe, place.results_dir) for recipe in planned}
    needed = place.since or any(experiment.status_of_run(*run) != "finished" for run in folders.items())
    if needed or (not planned[0].embedded and images_here(planned[0].row, place.data_dir)):
        plots.samples(place.images(planned[0])().train)
    else:
        print("Both networks are trained: what follows is drawn from their folders, and no images are loaded.")


def gained(row: str, data_dir: Path, most: int = 2000, drawn: int = 10) -> None:
    """Draw validation images that the published network of one depth gets wrong and that of the next one right.

    Of the first `most`, with counts both ways. Where the networks or the real images are not there, says so.
    """
    networks = sorted(next(iter(sorted(ROOT.glob(f"results/*/networks/{row}"))), ROOT).glob("depth*.onnx"))[:2]
    if len(networks) < 2:
        return print(f"Left out here: for {TABLE_1[row].title} there are no published networks of two depths.")
    if not images_here(row, data_dir):
        return print(
            f"Left out here: it needs the real images, and {shorten_path(data_dir)} has none of {TABLE_1[row].title}."
        )
    from studies import export  # onnxruntime takes a second

    split = data.load_splits(recipes.resolve(row, profile=networks[0].parts[-4], rule="equal"), data_dir).validation
    images, labels = split.images[:most], split.labels[:most]
    first, then = (torch.tensor(export.logits_of(network, images)).argmax(1) for network in networks)
    below, above = (int(network.stem[-2:]) for network in networks)
    better, worse = (first != labels) & (then == labels), (first == labels) & (then != labels)
    counts = f"{int(better.sum())} right that depth {below} has wrong, and {int(worse.sum())} the other way round"
    print(f"Of {len(labels):,} validation images depth {above} has {counts} ({networks[0].parent.relative_to(ROOT)}).")
    names, chosen = split.dataset.class_names or range(split.dataset.classes), better.nonzero().flatten()[:drawn]
    titles = [f"{names[labels[i]]}\ndepth {below}:\n{names[first[i]]}" for i in chosen]
    plots.pictures([images[i] for i in chosen], titles)


def structure(recipe: Recipe) -> pd.DataFrame:
    """Return depth, params, size_mb and macs_m of a recipe's network truncated at every depth, without training."""
    dataset = data.DATASETS[recipe.row]
    network = models.build(recipe.architecture, dataset.image_shape[0], dataset.classes, recipe.width)
    return pd.DataFrame(metrics.measure_every_depth(network, dataset.image_shape, recipe.last_depth))


def outcome(odn_folder: Path, full_folder: Path) -> str:
    """Return what a search found as sentences; if nothing by rule `equal`, also the depth as good as the full one."""
    odn, full = map(recipes.read_run, (odn_folder, full_folder))
    depths = pd.read_csv(odn_folder / "depths.csv")
    has = f"has {odn.val_acc_pct:.2f} % of the validation images right"
    if odn.met_goal:
        return f"Depth {odn.depth} of {odn.max_depth} is the first to meet the goal of {odn.goal_pct:g} %: it {has}."
    text = f"No depth met the goal of {odn.goal_pct:g} %. The last one tried, {odn.depth} of {odn.max_depth}, {has}."
    near = depths.loc[depths["val_acc_pct"] >= full.val_acc_pct - 0.5, "depth"]
    if odn.rule == "equal" and len(near):
        as_good = f"depth {full.depth}, trained alike ({full.val_acc_pct:.2f} %)"
        text += f" The smallest depth within half a point of {as_good} is {near.min()}."
    return text


def comparison(odn_folder: Path, full_folder: Path) -> pd.DataFrame:
    """Return a table of a search and its full network: each value of Table I measured, in the paper, difference."""
    odn, full = recipes.read_run(odn_folder), recipes.read_run(full_folder)
    printed, lines, measured = TABLE_1[odn.row], [], f"measured ({odn.profile})"
    for run, paper in (odn, printed.odn), (full, printed.full):
        values = vars(run) | {"params_m": run.params / 1e6}
        lines += [(run.variant, title, values[name], getattr(paper, name)) for name, title in TITLES.items()]
    saved_pct = 100 * (1 - odn.size_mb / full.size_mb)
    lines.append(("odn", "size reduction (%)", saved_pct, printed.size_reduction_pct))
    table = pd.DataFrame(lines, columns=["variant", "quantity", measured, "paper"]).set_index(["variant", "quantity"])
    return table.assign(difference=table[measured] - table["paper"])


def history(run: plots.AnyRun) -> Figure:
    """Draw the training curves of a finished run, with the authors' curves behind them if there are any."""
    figure = plots.history(pd.read_csv(run.folder / "epochs.csv"), run)
    if run.variant == "odn" and reference.behind(figure.axes, run):
        figure.legends[0].remove()
        figure.legend(*figure.axes[0].get_legend_handles_labels(), loc="outside upper center", ncols=4)
    return figure


def draw(odn_folder: Path, *full_folder: Path) -> None:
    """Save the figures of a dataset's search (structure, choice of depth, history) and of its full network."""
    folder, odn = odn_folder.parents[1] / "figures", recipes.read_run(odn_folder)
    depths = pd.read_csv(odn_folder / "depths.csv")
    plots.save(plots.structure(depths, odn, TABLE_1[odn.row]), folder / f"{odn.name}-structure.png")
    plots.save(plots.depth_choice(depths, odn, TABLE_1[odn.row]), folder / f"{odn.name}-choice.png")
    for run in map(recipes.read_run, (odn_folder, *full_folder)):
        plots.save(history(run), folder / f"{run.name}-history.png")


def write(results_dir: Path, profile: str) -> None:
    """Call `draw` for every search with a full network, or comparable with the paper, whose figures are out of date;
    drawing takes minutes.
    """
    runs = common.finished(results_dir, profile)
    for _, pair in runs.groupby(["row", "rule", "label", "seed"]) if len(runs) else ():
        odn, *full = pair.sort_values("variant", ascending=False).itertuples()
        searched = odn.variant == "odn" and odn.first_depth == 1 and odn.test_acc_pct > 0
        if full or (searched and not odn.not_comparable):
            last = odn.folder.parents[1] / "figures" / f"{(full or [odn])[0].name}-history.png"  # that `draw` saves
            sources = [run.folder / "result.json" for run in (odn, *full)] + [Path(plots.__file__)]
            if not last.exists() or last.stat().st_mtime < max(source.stat().st_mtime for source in sources):
                draw(odn.folder, *(run.folder for run in full))
