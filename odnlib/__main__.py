"""The command line: `python -m odnlib run` trains without a notebook, `python -m odnlib notebooks` is run_all.sh."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from odnlib import ROOT


def value(text: str) -> object:
    """5 -> 5, 0.1 -> 0.1, true -> True, none -> None, anything else stays text."""
    words = {"none": None, "true": True, "false": False}
    if text.lower() in words:
        return words[text.lower()]
    for number in (int, float):
        try:
            return number(text)
        except ValueError:
            continue
    return text


def override(text: str) -> tuple[str, object]:
    name, equals, content = text.partition("=")
    if not equals:
        raise argparse.ArgumentTypeError(f"{text!r} is not NAME=VALUE, e.g. width=16")
    return name, value(content)


def words(text: str) -> list[str]:
    return [word for word in text.split(",") if word]


def parser() -> argparse.ArgumentParser:
    main = argparse.ArgumentParser(prog="python -m odnlib", description=__doc__)
    commands = main.add_subparsers(dest="command", required=True)
    shared = argparse.ArgumentParser(add_help=False)
    shared.add_argument("--profile", default="smoke", help="smoke (default), reduced, quick or paper")
    shared.add_argument("--protocol", help="released, printed or fast (default: released; in quick, fast)")
    shared.add_argument(
        "--data-dir", default=ROOT / "data", help="where torchvision keeps the datasets (default: data)"
    )
    shared.add_argument("--results-dir", default=ROOT / "results", help="where to write (default: results)")
    shared.add_argument("--device", default="auto", help="auto (default), cpu, cuda, cuda:1, mps")
    shared.add_argument("--fresh", action="store_true", help="start over; what is there is kept beside it")
    shared.add_argument(
        "--set", dest="overrides", type=override, action="append", default=[], metavar="NAME=VALUE",
        help="override a setting of the recipe, e.g. width=16 depth_epochs=5; may be repeated",
    )  # fmt: skip
    run = commands.add_parser("run", parents=[shared], help="train one row without a notebook")
    run.add_argument("--row", required=True, help="mnist, emnist, fashion_mnist, svhn or cifar10")
    run.add_argument("--variants", type=words, default=["odn", "full"], help="odn,full (default: both)")
    run.add_argument("--seed", type=value, default=0)
    notebooks = commands.add_parser(
        "notebooks", parents=[shared], prog="./run_all.sh", help="run notebooks through papermill",
        description="Regenerate tables and figures: run the notebooks of all rows, or of --rows, through papermill.",
    )  # fmt: skip
    notebooks.add_argument("--stale", action="store_true", help="do runs again that other training code made")
    notebooks.add_argument("--rows", type=words, default=None, help="e.g. mnist,svhn (default: all)")
    notebooks.add_argument("--seeds", type=lambda text: [value(x) for x in words(text)], help="e.g. 0,1,2")
    notebooks.add_argument("--jobs", type=int, help="notebooks side by side (default: 2 in smoke, else 1)")
    return main


def train_rows(arguments: argparse.Namespace) -> int:
    from odnlib import data, experiment, plots, recipes

    overrides = dict(arguments.overrides)
    protocol = arguments.protocol or recipes.usual_protocol(arguments.profile)
    if not arguments.variants:
        raise recipes.RecipeError("variants '' name none: choose from odn, full")
    planned = [
        recipes.resolve(arguments.row, variant, arguments.profile, protocol, arguments.seed, **overrides)
        for variant in arguments.variants
    ]
    images = data.load(planned[0], arguments.data_dir, experiment.choose_device(arguments.device))
    for recipe in planned:
        with plots.ProgressBar(recipe) as bar:
            folder = experiment.run(recipe, images, Path(arguments.results_dir), [bar], arguments.fresh)
        print(f"{folder}: {json.dumps(json.loads((folder / 'result.json').read_text()))}", flush=True)
    return 0


def main(arguments: list[str] | None = None) -> int:
    """Exit code: 0 done, 1 something failed, 2 bad input."""
    parsed = parser().parse_args(arguments)
    from odnlib import data, recipes, results, runner, trainer

    try:
        return train_rows(parsed) if parsed.command == "run" else runner.run_notebooks(parsed)
    except KeyboardInterrupt:
        print("odnlib: stopped; the same command goes on from the last epoch", file=sys.stderr)
        return 130
    except recipes.RecipeError as error:
        print("\n".join(f"odnlib: {line}" for line in str(error).splitlines()), file=sys.stderr)
        return 2
    except OSError as error:  # a results folder that cannot be written
        print(f"odnlib: {error.filename or ''}: {error.strerror or error}", file=sys.stderr)
        return 1
    except (data.DataError, results.RunConflict, trainer.TrainingDiverged) as error:
        print(f"odnlib: {error}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
