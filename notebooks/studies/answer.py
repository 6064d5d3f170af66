"""Notebook 10: what an accuracy on own images is worth, what takes no network, and which network to take.

Judged is the accuracy, or where that is lower the mean over the classes of the share recognised, the balanced accuracy.
In classes of equal size they are the same; with 940 images against 60 whoever always answers the larger class has an
accuracy of 94 and a balanced accuracy of 50 %. (The recall of the worst class would say more, but of few images.)
"""

from collections.abc import Callable
from itertools import count

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import torch
from matplotlib.figure import Figure
from sklearn import metrics
from sklearn.dummy import DummyClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from odnlib.data import Data, DataError, Split
from odnlib.recipes import RecipeError
from studies.ladder import TriedNetwork, interval_pct

WIDEST_HALF_INTERVAL_PTS = 10  # with which nothing is recommended
MOST_IMAGES_FOR_LOGISTIC_REGRESSION = 5000  # it takes long with more
Classifier = Callable[[Split], np.ndarray]  # a split -> probabilities (N, classes)


def fit_simple_classifiers(train: Split) -> dict[str, Classifier]:
    """Return, fitted to training images, by name: answering the largest class, and logistic regression on pixels."""

    def pixels(split: Split) -> np.ndarray:
        return split.images.flatten(1).cpu().numpy().astype(np.float32)

    mixed = torch.randperm(len(train), generator=torch.Generator().manual_seed(0))
    mixed = mixed[:MOST_IMAGES_FOR_LOGISTIC_REGRESSION]
    known = Split(train.images[mixed], train.labels[mixed], train.dataset)
    logistic = make_pipeline(StandardScaler(), LogisticRegression(C=0.01, max_iter=200))
    models = {"guessing the largest class": DummyClassifier(), "logistic regression on the pixels": logistic}
    for model in models.values():
        model.fit(pixels(known), known.labels.cpu())
    return {name: lambda split, model=model: model.predict_proba(pixels(split)) for name, model in models.items()}


def count_effective_images(split: Split) -> float:
    """Return how many images in classes of equal size would tell the balanced accuracy as exactly as a split's do."""
    counts = split.labels.unique(return_counts=True)[1].cpu().numpy()
    return float(len(counts) ** 2 / (1 / counts).sum())


def score_probabilities(answered: np.ndarray, split: Split) -> dict[str, float]:
    """Return acc_pct, balanced_pct, the lower as judged_pct, its interval low, high, of answers (N, classes)."""
    labels, classes = split.labels.cpu().numpy(), answered.argmax(1)
    both = {"acc_pct": metrics.accuracy_score, "balanced_pct": metrics.balanced_accuracy_score}
    both = {name: 100 * float(score(labels, classes)) for name, score in both.items()}
    judged = min(both.values())
    interval = interval_pct(judged, count_effective_images(split))
    return both | {"judged_pct": judged} | dict(zip(("low", "high"), interval, strict=True))


def score_classifiers(classifiers: dict[str, Classifier], split: Split) -> pd.DataFrame:
    """Return a table of `score_probabilities` on a split, one row per classifier, by its name."""
    return pd.DataFrame({name: score_probabilities(x(split), split) for name, x in classifiers.items()}).T


def check_percent(target_pct: float) -> None:
    """Raise RecipeError, with a better question, unless a target is an accuracy in % that can be asked for."""
    if not 1 < target_pct <= 100:
        instead = f"; did you mean {100 * target_pct:g}?" if 0 < target_pct <= 1 else ""
        allowed = "it is a percentage, above what guessing reaches and at most 100"
        raise RecipeError(f"target {target_pct:g}: {allowed}{instead}")


def check_target(target_pct: float, data: Data) -> str:
    """Return what a target accuracy in % asks of own images, in a sentence: how exactly validation images can tell it,
    and what unequal classes add. RecipeError, with a better question, if it asks for something else than is meant;
    DataError, with how many are needed, if the images are too few to recommend anything.
    """
    check_percent(target_pct)
    shares = pd.Series(data.validation.labels.cpu()).value_counts(normalize=True)
    guess_pct, images, there = 100 * shares.iloc[0], len(data.validation), count_effective_images(data.validation)
    names = data.train.dataset.class_names
    if target_pct <= guess_pct:
        raise RecipeError(
            f"target {target_pct:g}: always answering the largest class is right for {guess_pct:.1f} % of the "
            f"validation images. Ask for more, e.g. {(100 + guess_pct) / 2:.1f}, which halves the errors"
        )
    exact = np.ptp(interval_pct(target_pct, there)) / 2
    needed = next(n for n in count(1) if np.ptp(interval_pct(target_pct, n)) <= 2 * WIDEST_HALF_INTERVAL_PTS)
    if there < needed:
        few = f"; {names[shares.index[-1]]!r} has but {images * shares.iloc[-1]:.0f}"
        worth = f" (as good as {there:.0f} in classes of equal size{few})" * (there < images - 0.5)
        raise DataError(
            f"with {images} validation images{worth} an accuracy of {target_pct:g} % is uncertain by {exact:.0f} "
            f"points, so nothing can be recommended: {needed} are needed, and {needed / 0.15:.0f} images in all where "
            "15 % are held back"
        )
    said = f"With {images} validation images an accuracy of {target_pct:g} % is uncertain by ±{exact:.1f} points."
    if shares.iloc[0] <= 2 * shares.iloc[-1]:
        return said
    largest, smallest = (f"{100 * shares[label]:.1f} % {names[label]!r}" for label in shares.index[[0, -1]])
    return f"{said} Classes are unequal ({largest}, {smallest}), so it is asked of the mean over the classes, too."


def choose_network(tried: list[TriedNetwork], goal_pct: float, validation: Split) -> TriedNetwork:
    """Return the network that met the goal, which is the last tried, or else the most accurate one; DataError if none
    is better than guessing, as far as these validation images can tell.
    """
    best, guess_pct = max(tried, key=lambda network: network.accuracy_pct), 100 / len(validation.labels.unique())
    low, _ = interval_pct(best.accuracy_pct, count_effective_images(validation))
    if low <= guess_pct:
        raise DataError(
            f"no network can be told from guessing: {best.accuracy_pct:.1f} % of a class are recognised in the mean, "
            f"{guess_pct:.1f} by guessing. Nothing is recommended: more images are needed, or larger ones (image_size)"
        )
    return tried[-1] if tried[-1].meets(goal_pct) else best


def describe_recommendation(offered: pd.DataFrame, simple: pd.DataFrame, goal_pct: float, validation: Split) -> str:
    """Return which network to take in sentences; `offered` is from `ladder.tabulate_tried_networks`, `simple` the
    `score_classifiers` of what takes no network.
    """
    take, (guess_pct, logistic_pct) = offered[offered["chosen"]].iloc[0], simple["judged_pct"]
    met, near = take.judged_pct >= goal_pct, (offered.loc[~offered["chosen"], "high"] >= goal_pct).any()
    twice = " That is the mean of two seeds, of which the better one is taken." * bool(take.seeds > 1)
    sentences = [
        f"On validation {take.judged_pct:.1f} % are recognised (95 % interval {take.low:.1f} to {take.high:.1f}; "
        f"{len(validation)} images, which also chose it: a little too good); by guessing {guess_pct:.1f}, by "
        f"logistic regression {logistic_pct:.1f} %.{twice}",
        f"Width {take.width}, depth {take.depth}: {take.size_kb:,.0f} kB, {take.macs_m:.1f} million "
        f"multiply-accumulates and {take.latency_ms:.1f} ms an image by PyTorch on this machine's CPU.",
        f"It is the smallest on this ladder that met your {goal_pct:g} % when all were trained alike."
        + " The ladder has no smaller one: a smaller network may do." * (len(offered) == 1)
        + " A smaller one that was tried may do, too: its interval reaches it." * bool(near)
        if met
        else f"No network on this ladder met your {goal_pct:g} %; this is the most accurate. More or larger images, "
        "more bytes or epochs may reach it - or a lower target is right.",
    ]
    if logistic_pct >= take.judged_pct:
        sentences += ["Logistic regression is as good: these images need no network."]
    return "\n".join(sentences)


def describe_test(scores: pd.DataFrame, goal_pct: float, met: bool) -> str:
    """Return what test images say of the network in a sentence; `scores` is from `score_classifiers`, it first; `met`:
    whether it met the goal on validation.
    """
    (network_pct, *simple_pct), (low, high) = scores["judged_pct"], scores[["low", "high"]].iloc[0]
    away = network_pct - goal_pct
    asked = "as you asked" if away >= 0 else f"below your {goal_pct:g}"
    asked += " (on validation it was not met)" * bool(away >= 0 and not met)
    sure = f", though with so few images it may be {'less' if away >= 0 else 'as much'}" * bool(low < goal_pct < high)
    between = f"{low:.1f} to {high:.1f}"
    alike = " It cannot be told from what takes no network." * bool(max(simple_pct) > low)
    advice = " Ask for more to get a larger one: the networks that are there are not trained again."
    said = f"On test images, so of new ones, {network_pct:.1f} % ({between}): {asked}{sure}.{alike}"
    return said + advice * bool(met and away < 0)


def score_each_class(answered: np.ndarray, split: Split) -> pd.DataFrame:
    """Return a table by class of probabilities (N, classes): images, recall_pct and its 95 % interval low, high."""
    names, labels = split.dataset.class_names, split.labels.cpu().numpy()
    _, recall, _, images = metrics.precision_recall_fscore_support(
        labels, answered.argmax(1), labels=range(len(names)), zero_division=np.nan
    )
    table = pd.DataFrame({"images": images, "recall_pct": 100 * recall}, pd.Index(names, name="class"))
    low, high = interval_pct(table["recall_pct"], table["images"])
    return table.assign(low=low, high=high)


def describe_weakest_class(scores: pd.DataFrame) -> str:
    """Return which classes of `score_each_class` are recognised least, in a sentence."""
    least = scores[scores["recall_pct"] == scores["recall_pct"].min()]
    names, (_, recall_pct, low, high) = " and ".join(least.index), least.iloc[0]
    return f"Least well recognised on validation: {names}, {recall_pct:.1f} % ({low:.1f} to {high:.1f})."


def draw_mistakes(answered: np.ndarray, split: Split, most: int = 12) -> Figure:
    """Draw the confusion matrix of probabilities (N, classes) for a split, and `most` images of the surest mistakes."""
    labels, classes = split.labels.cpu().numpy(), answered.argmax(1)
    names = [name.replace("$", r"\$") for name in split.dataset.class_names]
    figure = plt.figure(figsize=(11, 4 + 0.2 * len(names)), layout="constrained")
    left, right = figure.subfigures(1, 2)
    right.suptitle("the surest mistakes: what it is, and what it was taken for", fontsize=9)
    shown = {"labels": range(len(names)), "display_labels": names, "xticks_rotation": "vertical", "colorbar": False}
    shown |= {"cmap": "Blues", "ax": left.subplots()}
    metrics.ConfusionMatrixDisplay.from_predictions(labels, classes, **shown).ax_.grid(False)
    worst = [i for i in answered.max(1).argsort()[::-1] if classes[i] != labels[i]][:most]
    for axis, i in zip(right.subplots(3, most // 3).flat, worst, strict=False):
        axis.imshow(split.images[i].cpu().permute(1, 2, 0).squeeze(), cmap="gray")
        axis.set_title(f"{names[labels[i]]} as\n{names[classes[i]]}, {100 * answered[i].max():.0f} %", fontsize=8)
    for axis in right.axes:
        axis.axis("off")
    return figure
