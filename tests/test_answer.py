"""What an accuracy on own images is worth, which targets are refused, and what is never recommended."""

import re

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from odnlib.data import Data, DataError, Dataset, Split
from odnlib.recipes import RecipeError
from studies import answer, ladder
from tests.test_ladder import LADDER


def split(*images, seed=0):
    """So many images of each class, told by their brightness."""
    about = Dataset("own", "", (1, 8, 8), len(images), 0, 0.5, 0.3, class_names=tuple("abcdefghij"[: len(images)]))
    labels = torch.arange(len(images)).repeat_interleave(torch.tensor(images))
    noise = torch.randint(60, (len(labels), 1, 8, 8), generator=torch.Generator().manual_seed(seed))
    return Split((noise + 190 // len(images) * labels[:, None, None, None]).to(torch.uint8), labels, about)


def data(*images):
    return Data(split(*images), split(*(max(round(n * 0.15 / 0.7), 1) for n in images), seed=1), split(*images))


UNEQUAL = data(658, 42)  # of 940 and 60


def constant(images, likeliest=0):
    return np.eye(images.dataset.classes)[[likeliest] * len(images)]


def rungs(*accuracies_pct):
    return [ladder.TriedNetwork((recipe,), (pct,)) for recipe, pct in zip(LADDER, accuracies_pct, strict=False)]


def test_what_takes_no_network_is_measured_like_one():
    table = answer.score_classifiers(answer.fit_simple_classifiers(UNEQUAL.train), UNEQUAL.validation)
    guess, logistic = table.to_dict("records")
    assert guess["acc_pct"] == pytest.approx(94.0)
    assert (guess["balanced_pct"], guess["judged_pct"]) == (50.0, 50.0)
    assert logistic["judged_pct"] == 100.0


@pytest.mark.parametrize(
    ("target_pct", "images", "kind", "words"),
    [
        (0.9, (300, 300), RecipeError, "did you mean 90?"),
        (1.0, (300, 300), RecipeError, "did you mean 100?"),
        (50.0, (300, 300), RecipeError, "50.0 % of the validation images. Ask for more, e.g. 75.0, which halves"),
        (90.0, (658, 42), RecipeError, "94.0 % of the validation images. Ask for more, e.g. 97.0, which halves"),
        (94.0, (658, 42), RecipeError, "always answering the largest class is right for 94.0 %"),
        (
            90.0,
            (6, 6),
            DataError,
            "with 2 validation images an .* are needed, and [23]\\d\\d images in all",
        ),
        (99.9, (3000, 6), DataError, "644 validation images .as good as 4 in classes of equal size.* nothing can be"),
    ],
)
def test_a_target_that_is_no_question_is_refused_with_a_better_one(target_pct, images, kind, words):
    with pytest.raises(kind, match=words):
        answer.check_target(target_pct, data(*images))


def test_what_is_asked_is_told_with_its_interval_and_unequal_classes():
    said = answer.check_target(97.0, UNEQUAL)
    assert re.match(
        r"With 150 validation images an accuracy of 97 % is uncertain by ±\d\.\d points\. Classes are", said
    )
    assert "(94.0 % 'a', 6.0 % 'b'), so it is asked of the mean over the classes, too" in said
    assert "unequal" not in answer.check_target(90.0, data(300, 300))


def test_few_images_of_a_class_are_worth_few_images():
    assert answer.count_effective_images(split(75, 75)) == pytest.approx(150)
    assert 30 < answer.count_effective_images(split(141, 9)) < 40
    assert answer.count_effective_images(split(0, 20, 20)) == pytest.approx(40)


@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(1, 400), min_size=2, max_size=6), st.data())
def test_a_constant_classifier_meets_no_target_that_is_accepted_and_is_not_recommended(images, draw):
    """Whichever class it answers, and however unequal they are, 940 against 60 among them."""
    validation = split(*images)
    judged_pct = answer.score_probabilities(
        constant(validation, draw.draw(st.integers(0, len(images) - 1))), validation
    )["judged_pct"]
    assert judged_pct <= 100 * max(images) / sum(images)  # below which `question` refuses
    with pytest.raises(DataError, match=r"no network can be told from guessing"):
        answer.choose_network(rungs(judged_pct), 99.0, validation)


def test_a_rung_that_met_the_goal_is_chosen_and_else_the_most_accurate():
    equal = split(60, 60)
    assert answer.choose_network(rungs(70.0, 80.0, 90.0), 90.0, equal).recipes[0] == LADDER[2]
    assert answer.choose_network(rungs(70.0, 89.0, 88.0), 90.0, equal).recipes[0] == LADDER[1]


@pytest.mark.parametrize(
    ("judged_pct", "logistic_pct", "words"),
    [
        (92.0, 70.0, "that met your 90 % when all were trained alike. The ladder has no smaller one"),
        (80.0, 70.0, "No network on this ladder met your 90 %; this is the most accurate"),
        (92.0, 95.0, "Logistic regression is as good: these images need no network."),
    ],
)
def test_recommendation_begins_with_the_interval(judged_pct, logistic_pct, words):
    line = {"width": 16, "depth": 3, "seeds": 1, "judged_pct": judged_pct, "low": 71.0, "high": 97.0, "size_kb": 336}
    offered = pd.DataFrame([line | {"macs_m": 3.7, "latency_ms": 0.4, "chosen": True}])
    said = answer.describe_recommendation(
        offered, pd.DataFrame({"judged_pct": [50.0, logistic_pct]}), 90.0, split(60, 60)
    )
    assert said.startswith(f"On validation {judged_pct:.1f} % are recognised (95 % interval 71.0 to 97.0; ")
    assert f"by guessing 50.0, by logistic regression {logistic_pct:.1f} %" in said
    assert words in said


@pytest.mark.parametrize(
    ("network", "simple", "words"),
    [
        ((96.0, 93.0, 98.0), 60.0, "96.0 % (93.0 to 98.0): as you asked."),
        ((91.0, 87.0, 94.0), 60.0, "91.0 % (87.0 to 94.0): as you asked, though with so few images it may be less."),
        (
            (80.0, 76.0, 83.0),
            60.0,
            "80.0 % (76.0 to 83.0): below your 90. Ask for more to get a larger one: the networks that are",
        ),
        ((61.3, 53.5, 68.5), 56.7, "below your 90. It cannot be told from what takes no network. Ask for more to get"),
    ],
)
def test_what_test_images_say_stands_beside_the_target_and_what_takes_no_network(network, simple, words):
    scores = pd.DataFrame([network, (50.0, 42.0, 58.0), (simple, 40.0, 70.0)], columns=["judged_pct", "low", "high"])
    assert words in answer.describe_test(scores, 90.0, True)
    missed = answer.describe_test(scores, 90.0, False)
    assert "Ask for more" not in missed
    assert ("(on validation it was not met)" in missed) == (network[0] > 90)


def test_recall_by_class_and_pictures_of_the_surest_mistakes():
    images = split(4, 4)
    answered = np.eye(2)[[0, 0, 0, 1, 1, 1, 1, 1]] * 0.8 + 0.1
    answered[3] = 0.05, 0.95
    table = answer.score_each_class(answered, images)
    assert table["recall_pct"].tolist() == [75.0, 100.0]
    assert table["images"].tolist() == [4, 4]
    assert answer.describe_weakest_class(table).startswith(
        f"Least well recognised on validation: {table.index[0]}, 75.0 % ("
    )
    alike = answer.score_each_class(np.eye(2)[[0, 0, 0, 1, 1, 1, 1, 0]], images)
    assert f"{alike.index[0]} and {alike.index[1]}, 75.0 %" in answer.describe_weakest_class(alike)
    figure = answer.draw_mistakes(answered, images)
    assert [axis.get_title() for axis in figure.axes if axis.get_title()] == ["a as\nb, 95 %"]
