"""Notebook 14: is depth the right thing to adapt? Fronts of accuracy against bytes, of networks trained alike.

All depths of the paper's networks at full width and of narrower ones, beside a chain that halves the image at every
block. What each was trained with stands in `kind`; rule `equal`, all training images, real ones.
"""

from collections.abc import Iterable
from itertools import product
from pathlib import Path
from types import SimpleNamespace

import pandas as pd
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke

from odnlib import recipes
from odnlib.files import write_rounded_csv
from odnlib.paper import TABLE_1
from studies import common, grades, plots

NETWORK_SETTINGS = {"architecture", "width", *common.DEPTH_RANGE_SETTINGS, *common.SETTINGS_WITHOUT_GOAL}
NETWORK_SETTINGS |= {"bfloat16", "threads"}
SMALL_RUN_SETTINGS = {"train_images", "depth_epochs"}  # by a notebook's usual settings, with stand-ins
FULL_WIDTH_KIND, NARROW_KIND = "paper's architecture, full width", "ResNet-18, narrow"
CHAIN_KIND, LONGER_CHAIN_KIND = "halving chain", "halving chain, trained longer"
LOOK_OF_KIND = {FULL_WIDTH_KIND: {"marker": "o", "color": plots.COLOR_FOUND}}
LOOK_OF_KIND |= {NARROW_KIND: {"marker": "s", "color": "0.55"}, CHAIN_KIND: {"marker": "^", "color": "0.15"}}
LOOK_OF_KIND |= {LONGER_CHAIN_KIND: {"marker": "^", "color": "0.15", "fillstyle": "none", "mew": 1.5}}
# (architecture, width, depth); networks of full width are Table I's rows
SMOKE_NETWORKS = [(x, 8, depth) for x, deepest in (("resnet18", 2), ("chain", 3)) for depth in range(1, deepest + 1)]
NARROW_NETWORKS = [*product(("resnet18", "chain"), (16, 32), (1, 2, 3)), ("chain", 8, 2), ("chain", 8, 3)]
NETWORKS_OF_ROW = dict.fromkeys(TABLE_1, NARROW_NETWORKS)
NETWORKS_OF_ROW["cifar10"] = [("chain", 16, 3), ("chain", 16, 4), ("chain", 32, 3), ("resnet18", 16, 5)]
FEWEST_SEEDS = 3  # of two networks that a verdict compares (the design in results/notes.md)
NETWORK_COLUMNS = ["row", "kind", "architecture", "width", "depth"]
MEASURED_COLUMNS = ["params", "size_mb", "macs_m", "val_acc_pct", "test_acc_pct"]
RESULT_COLUMNS = [*NETWORK_COLUMNS, "seed", *MEASURED_COLUMNS, "epochs", "settings"]


def plan_recipes(profile: str, rows: Iterable[str], seeds: Iterable[int], overrides: dict) -> list[recipes.Recipe]:
    """Return the recipes by `equal` of this study's networks, each trained alone, per dataset in `rows` and seed."""
    same = {"profile": profile, "rule": "equal"} | common.SETTINGS_WITHOUT_GOAL
    networks = dict.fromkeys(TABLE_1, SMOKE_NETWORKS) if profile == "smoke" else NETWORKS_OF_ROW
    return recipes.resolve_all(
        same | {"row": row, "seed": seed, "architecture": name, "width": width, "first_depth": depth}
        | {"last_depth": depth} | overrides
        for row in rows for name, width, depth in networks.get(row, SMOKE_NETWORKS) for seed in seeds
    )  # fmt: skip


def classify_run(run: SimpleNamespace) -> str:
    """Return the kind of a run's networks (a key of `LOOK_OF_KIND`), or "" if not of this study."""
    told = run.changed.keys() - NETWORK_SETTINGS - (SMALL_RUN_SETTINGS if run.embedded else set())
    if run.rule != "equal" or (run.goal_pct < 100 and run.width != 64):
        return ""
    if run.architecture == "chain":
        return LONGER_CHAIN_KIND if told else CHAIN_KIND
    if told:
        return ""
    return NARROW_KIND if run.width < 64 else FULL_WIDTH_KIND * (run.architecture == TABLE_1[run.row].architecture)


def read_results(results_dir: Path | str, profile: str = "*") -> pd.DataFrame:
    """Return a table, one row per network (every depth tried) and seed (`RESULT_COLUMNS`), of a profile or all ("*").
    Only depths that were chosen have a test accuracy. Stand-in images count only in profile `smoke`.
    """
    results = [pd.DataFrame(columns=RESULT_COLUMNS)]
    for run in common.read_finished_runs(results_dir, profile, "odn").itertuples():
        if (kind := classify_run(run)) and run.embedded == (profile == "smoke"):
            tried = pd.read_csv(run.folder / "depths.csv").query("epochs > 0").drop(columns="warmup_val_acc_pct")
            if kind == FULL_WIDTH_KIND:
                tried = tried[[not grades.is_exploratory(run, depth) for depth in tried["depth"]]]
            tried["test_acc_pct"] = tried["chosen"].map({True: run.test_acc_pct})
            about = {x: getattr(run, x) for x in ("row", "architecture", "width", "seed", "settings")}
            results.append(tried.assign(kind=kind, **about))
    return pd.concat(results)[RESULT_COLUMNS].sort_values([*NETWORK_COLUMNS, "seed"], ignore_index=True)


def average_over_seeds(results: pd.DataFrame) -> pd.DataFrame:
    """Return a table, one row per network: means of `results` over n seeds, and val_std, of the validation accuracy."""
    seeds = results.groupby([*NETWORK_COLUMNS, "epochs"], sort=False)
    means = seeds[MEASURED_COLUMNS].mean()
    return means.assign(val_std=seeds["val_acc_pct"].std(), n=seeds.size()).reset_index()


def compare_at_paper_size(results: pd.DataFrame) -> pd.DataFrame:
    """Return a table, one row per dataset in `read_results`: the most accurate network on validation that has no more
    bytes than the paper's network (bytes_mb), by depth (the paper's architecture at full width; columns depth_...) and
    as a chain (chain_...), and gain_pts, the chain's validation accuracy less the other's.
    """
    found, compared = average_over_seeds(results), []
    for row, of_row in found.groupby("row"):
        size_mb = TABLE_1[row].odn.size_mb
        fits = of_row[of_row["size_mb"] <= size_mb * 1.003]  # the file format adds a little
        best = {kind: x.loc[x["val_acc_pct"].idxmax()] for kind, x in fits.groupby("kind")}
        if best.keys() >= {FULL_WIDTH_KIND, CHAIN_KIND}:
            told = [*NETWORK_COLUMNS[2:], *MEASURED_COLUMNS[1:], "n"]
            depth, chain = best[FULL_WIDTH_KIND][told], best[CHAIN_KIND][told]
            record = {"row": row, "bytes_mb": size_mb, "gain_pts": chain["val_acc_pct"] - depth["val_acc_pct"]}
            compared.append(record | dict(depth.add_prefix("depth_")) | dict(chain.add_prefix("chain_")))
    return pd.DataFrame(compared)


def judge_claim(results: pd.DataFrame) -> tuple[str, str]:
    """Return (verdict, reason): is depth more accurate than a chain of as many bytes for most datasets in `results`?
    Open with fewer than three seeds of a network.
    """
    compared = compare_at_paper_size(results)
    if compared.empty:
        return "not measured", "no dataset has both here; the chains are runs of profile reduced"
    told = []
    for x in compared.to_dict("records"):
        networks = [
            f"{name} {x[f'{name}_val_acc_pct']:.2f} % ({x[f'{name}_size_mb']:.2f} MB, "
            f"{x[f'{name}_macs_m']:.1f} million multiply-accumulates, n = {x[f'{name}_n']})"
            for name in ("depth", "chain")
        ]
        told.append(f"{TABLE_1[x['row']].title}, at most {x['bytes_mb']:.2f} MB, on validation: {', '.join(networks)}")
    gains = compared["gain_pts"].round(2)
    if compared[["depth_n", "chain_n"]].min(axis=None) < FEWEST_SEEDS:
        return common.CLAIM_OPEN, "; ".join(told)
    verdicts = {common.CLAIM_FAILS: gains > 0, common.CLAIM_HOLDS: gains < 0}
    return next((x for x, rows in verdicts.items() if rows.mean() > 0.5), common.CLAIM_OPEN), "; ".join(told)


def draw_results(results: pd.DataFrame) -> Figure:
    """Draw test accuracy against bytes and MACs, a dataset of `results` a row, with the paper's points."""
    found = average_over_seeds(results).dropna(subset="test_acc_pct")
    rows = [row for row in TABLE_1 if row in set(found["row"])]
    drawn, axes = plots.make_axes(len(rows), 2, 1.2 + 2 * len(rows), squeeze=False, sharey="row", sharex="col")
    beside = {"textcoords": "offset points", "fontsize": 8, "color": "0.3", "va": "center"}
    beside["path_effects"] = [withStroke(linewidth=2.5, foreground="white")]
    for line, row in zip(axes, rows, strict=True):
        printed = [TABLE_1[row].odn, TABLE_1[row].full]
        for axis, size in zip(line, ("size_mb", "macs_m"), strict=True):
            look = {"color": plots.COLOR_PAPER, "mfc": "none", "ms": 9, "mew": 1.5, "lw": 1, "label": "paper, Table I"}
            axis.plot([getattr(x, size) for x in printed], [x.test_acc_pct for x in printed], "D--", **look)
            for kind, look in LOOK_OF_KIND.items():
                for x in found[(found["row"] == row) & (found["kind"] == kind)].to_dict("records"):
                    axis.plot(x[size], x["test_acc_pct"], ls="", ms=7, label=kind, **look)
                    left = x["architecture"] == "chain" and x["depth"] <= 3  # where there is room
                    at = {"xytext": (-7 if left else 7, 0), "ha": "right" if left else "left"}
                    axis.annotate(f"{x['width']} x {x['depth']}", (x[size], x["test_acc_pct"]), **at, **beside)
            axis.set(xscale="log", ymargin=0.15, xmargin=0.1)
            plots.label_log_axis(axis.xaxis)
        line[0].set_ylabel(f"{TABLE_1[row].title} (%)")
    for axis, label in zip(axes[-1], ("size on disk (MB)", "million multiply-accumulates"), strict=True):
        axis.set(xlabel=label, xlim=(axis.get_xlim()[0] / 3, None))  # room for labels
    plots.legend_above(drawn, 3)
    ours = (
        "Accuracy on test images, means of the seeds, rule equal; width x depth of each network (the paper's have 64)"
    )
    longer = "Longer: 20 to 40 epochs in batches of 128, shifted, three seeds; the others 8 to 12, one or two seeds"
    return plots.write_below(drawn, f"{ours}. {longer}. Paper: as printed, at its depth (left) and whole")


def write_results(results_dir: Path | str, profile: str) -> None:
    """Write depth_or_width.csv, depth_or_width_answers.csv and the figure, where a profile has the study's networks."""
    folder = Path(results_dir) / profile
    if (read_results(results_dir, profile)["kind"] != FULL_WIDTH_KIND).any():
        results = read_results(results_dir, profile if profile == "smoke" else "*")
        write_rounded_csv(folder / "depth_or_width.csv", average_over_seeds(results))
        write_rounded_csv(folder / "depth_or_width_answers.csv", compare_at_paper_size(results))
        plots.save_figure(draw_results(results), folder / "figures" / "depth_or_width.png")
