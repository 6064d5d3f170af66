"""Is a depth found once good for a similar dataset (Section I), and does expanding matter to the network deployed?

Three trainings of one dataset and seed: the search; the network cut at the depth that a search on a sibling dataset
found, trained plainly from its initial weights; and the network cut at the search's own depth, trained plainly for as
many multiply-accumulates as the search took - the baseline that the paper leaves out.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path

import pandas as pd

from odnlib import results
from odnlib.paper import TABLE_1
from odnlib.recipes import Recipe, RecipeError, resolve
from odnlib.studies.compress import TOLERANCE_PCT, interval
from odnlib.studies.trend import settings
from odnlib.verdict import comparison

PAIRS = [["mnist", "emnist"], ["emnist", "mnist"]]  # dataset, and the sibling whose depth it is given
COMMON = "resnet18"  # a depth can be handed on only within one architecture
INDEX = "reuse.json"  # which runs make up the studies; all else is read from their folders
QUESTIONS = {"reused": ("reused", "search"), "expansion": ("search", "plain")}  # difference: first arm - second


def searches(
    profile: str,
    protocol: str,
    pairs: Iterable[tuple[str, str]],
    seeds: Iterable[int],
    overrides: dict,
    targets: dict[str, float] | None = None,
) -> dict[tuple[str, int], Recipe]:
    """(row, seed) -> the search on it, for every dataset in `pairs` of (dataset, sibling whose depth it is given).

    Args:
        targets: row -> its target_pct, where it is not the usual one.

    Raises:
        RecipeError: see `recipes.resolve`.
    """  # fmt: skip
    pairs, found = [tuple(pair) for pair in pairs], {}
    if not pairs or any(len(set(pair)) != 2 for pair in pairs):
        raise RecipeError(f"pairs {pairs} name no two datasets: a dataset, and the sibling whose depth it is given")
    for row in dict.fromkeys(row for pair in pairs for row in pair):
        target = {"target_pct": targets[row]} if row in (targets or {}) else {}
        for seed in seeds:
            wanted = {"architecture": COMMON} | target | overrides
            found[row, seed] = resolve(row, "odn", profile, protocol, seed, **wanted)
    return found


def plainly(search: Recipe, depth: int) -> Recipe:
    """The search's network cut at `depth` and trained from its initial weights, as the whole network would be."""
    return replace(search, variant="full", last_depth=depth)


def at_same_cost(search: Recipe, folder: Path) -> Recipe:
    """`plainly` at the depth that the search found, for as many epochs as it could have paid with its own cost."""
    epochs, depth = pd.read_csv(folder / "epochs.csv"), results.read_json(folder / "result.json")["depth"]
    per_epoch = epochs["train_tmacs"].diff().fillna(epochs["train_tmacs"])[epochs["depth"] == depth].iloc[-1]
    most = round(epochs["train_tmacs"].iloc[-1] / per_epoch)
    return replace(plainly(search, depth), full_epochs=most, patience=max(most, search.patience))  # all of them


def shared(search: Recipe) -> str:
    """What a search's tag has in common with those of the other rows, which have targets of their own."""
    parts = settings(search.tag, search.architecture).split("-")
    return "-".join(part for part in parts if not part.startswith("target"))


def study(
    found: dict[tuple[str, int], Recipe],
    pairs: Iterable[tuple[str, str]],
    results_dir: Path,
    train: Callable[[Recipe], Path],
) -> pd.DataFrame:
    """Train all arms, keep which runs they are in results/<profile>/reuse.json; `table` of this study."""
    folders = {key: train(recipe) for key, recipe in found.items()}
    lines = []
    for row, sibling in pairs:
        for seed in sorted({seed for _, seed in found}):
            search = found[row, seed]
            depth = results.read_json(folders[sibling, seed] / "result.json")["depth"]
            arms = {"reused": plainly(search, depth), "plain": at_same_cost(search, folders[row, seed])}
            names = {"search": search.name} | {arm: train(recipe).name for arm, recipe in arms.items()}
            lines.append({"row": row, "sibling": sibling, "seed": seed, "protocol": search.protocol} | names)
    file = results_dir / search.profile / INDEX
    kept = (results.read_json(file) or {"studies": []})["studies"]
    runs = results_dir / search.profile / "runs"

    def place(line: dict) -> tuple[str, ...]:  # of the study that a line belongs to, and with which targets
        recipe = results.read_recipe(runs / line["search"])
        return line["row"], line["sibling"], line["protocol"], shared(recipe), recipe.tag

    new = {place(line)[:-1]: place(line)[-1] for line in lines}  # a study with other targets replaces the one before
    kept = [line for line in kept if (runs / line["search"] / "recipe.json").exists()]
    kept = [line for line in kept if new.get(place(line)[:-1], place(line)[-1]) == place(line)[-1]]
    every = {(line["search"], line["sibling"]): line for line in kept + lines}  # done again, a line keeps its place
    results.write_json(file, {"studies": list(every.values())})
    made = table(results_dir, search.profile)
    return made[made["search"].isin([line["search"] for line in lines])]


def plain_runs(runs: Path, searches: Iterable[Recipe]) -> list[Path]:
    """Folders, in results/<profile>/runs, of the plain trainings that earlier studies of these searches led to."""
    names = {search.name for search in searches}
    studies = (results.read_json(runs.with_name(INDEX)) or {"studies": []})["studies"]
    arms = {study[arm] for study in studies if study["search"] in names for arm in ("reused", "plain")}
    return [runs / name for name in sorted(arms)]


def table(results_dir: Path, profile: str) -> pd.DataFrame:
    """One line per dataset, sibling, seed and arm: depth, epochs, train_tmacs, accuracies, why not comparable."""
    lines = []
    for study in (results.read_json(results_dir / profile / INDEX) or {"studies": []})["studies"]:
        folders = {arm: results_dir / profile / "runs" / study[arm] for arm in ("search", "reused", "plain")}
        if not all((folder / "result.json").exists() for folder in folders.values()):
            continue  # one was set aside
        for arm, folder in folders.items():
            result, recipe = results.read_json(folder / "result.json"), results.read_recipe(folder)
            cells = {name: result[name] for name in ("depth", "epochs", "train_tmacs", "val_acc_pct", "test_acc_pct")}
            named = {name: study[name] for name in ("row", "sibling", "seed", "protocol", "search")}
            named["settings"] = shared(results.read_recipe(folder.with_name(study["search"])))
            reason = comparison.why_not_comparable(vars(recipe) | {"tag": named["settings"]})
            machine = results.read_json(folder / "provenance.json")["processor"]
            lines.append(named | {"arm": arm} | cells | {"not_comparable": reason, "processor": machine})
    return pd.DataFrame(lines)


def answers(lines: pd.DataFrame) -> pd.DataFrame:
    """Per study, question and dataset: mean difference in test accuracy and its 95 % interval over seeds, ratio of the
    training cost, verdict.

    `reused` holds if at most `TOLERANCE_PCT` are lost, `expansion` if the search's network is the better one.
    """
    made = []
    for (protocol, settings_, row, sibling), at in lines.groupby(
        ["protocol", "settings", "row", "sibling"], sort=False
    ):
        arms = at.pivot(index="seed", columns="arm")
        for question, (arm, reference) in QUESTIONS.items():
            difference = arms["test_acc_pct"][arm] - arms["test_acc_pct"][reference]
            mean, low, high = interval(difference)
            least = -TOLERANCE_PCT if question == "reused" else 0.0
            judged = "holds" if low > least else "does not hold" if high < least else "open"
            cost = arms["train_tmacs"][arm].sum() / arms["train_tmacs"][reference].sum()
            line = {"protocol": protocol, "settings": settings_, "question": question, "row": row, "sibling": sibling}
            line |= {"difference": mean, "low": low, "high": high, "n": len(difference), "cost_ratio": cost}
            line |= {"verdict": judged, "not_comparable": at["not_comparable"].iloc[0]}
            made.append(line | {"processor": at["processor"].iloc[0]})
    return pd.DataFrame(made)


def verdict(answered: pd.DataFrame) -> str:
    """On one question: holds if it does for every dataset, does not if it does not for one, otherwise open."""
    found = set(answered["verdict"])
    return "does not hold" if "does not hold" in found else "open" if "open" in found else "holds"


def sentence(answer: pd.Series) -> str:
    """What one line of `answers` says, in words."""
    row, sibling = TABLE_1[answer["row"]].title, TABLE_1[answer["sibling"]].title
    said = {
        "reused": f"trained plainly at the depth that the search on {sibling} found, against a search",
        "expansion": "found by the search, against the same network trained plainly at the same cost",
    }[answer["question"]]
    sure = f"95 % interval {answer['low']:+.2f} to {answer['high']:+.2f}" if answer["n"] > 2 else "no interval"
    points = f"{answer['difference']:+.2f} points of test accuracy ({sure}, n = {answer['n']})"
    cost = f"{answer['cost_ratio']:.2f} of the training cost, on {answer['processor']}"
    return f"{row}, {answer['protocol']}, {said}: {points} for {cost}: {answer['verdict']}"
