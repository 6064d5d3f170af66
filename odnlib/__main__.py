"""The command line: `python -m odnlib run` trains without a notebook, `python -m odnlib notebooks` is run_all.sh."""

from __future__ import annotations

import argparse
import json
import logging
import math
import signal
import sys
import threading
import time
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


def duration(text: str) -> float:
    """90s, 9m, 1.5h -> seconds."""
    units = {"s": 1, "m": 60, "h": 3600}
    try:
        seconds = float(text[:-1]) * units[text[-1:]]
    except (ValueError, KeyError):
        seconds = 0.0
    if not 0 < seconds < math.inf:
        raise argparse.ArgumentTypeError(f"{text!r} is not a time such as 90s, 9m or 1.5h")
    return seconds


def options(text: str) -> list[tuple[str, str]]:
    parts = [part.partition("=") for part in words(text)]
    if not all(equals for _, equals, _ in parts):
        raise argparse.ArgumentTypeError(f"{text!r} is not NAME=VALUE,..., e.g. partition=gpu,time=4:00:00")
    return [(name, value) for name, _, value in parts]


def folder(text: str) -> Path:
    return Path(text).expanduser()


def words(text: str) -> list[str]:
    return [word for word in text.split(",") if word]


def parser() -> argparse.ArgumentParser:
    main = argparse.ArgumentParser(prog="python -m odnlib", description=__doc__, allow_abbrev=False)
    commands = main.add_subparsers(dest="command", required=True)
    shared = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    shared.add_argument("--profile", default="smoke", help="smoke (default), reduced, quick or paper")
    shared.add_argument("--protocol", help="released, printed or fast (default: released; in quick, fast)")
    shared.add_argument(
        "--data-dir", type=folder, default=ROOT / "data", help="where torchvision keeps the datasets (default: data)"
    )
    shared.add_argument(
        "--results-dir", type=folder, default=ROOT / "results", help="where to write (default: results)"
    )
    shared.add_argument("--device", default="auto", help="auto (default), cpu, cuda, cuda:1, mps")
    shared.add_argument("--fresh", action="store_true", help="start over; what is there is kept beside it")
    shared.add_argument("--time-budget", type=duration, metavar="TIME", help="keep and stop after e.g. 90s, 9m or 1.5h")
    shared.add_argument(
        "--set", dest="overrides", type=override, action="append", default=[], metavar="NAME=VALUE",
        help="override a setting of the recipe, e.g. width=16 depth_epochs=5; may be repeated",
    )  # fmt: skip
    run = commands.add_parser("run", parents=[shared], allow_abbrev=False, help="train one row without a notebook")
    run.add_argument("--row", required=True, help="mnist, emnist, fashion_mnist, svhn or cifar10")
    run.add_argument("--variants", type=words, default=["odn", "full"], help="odn,full (default: both)")
    run.add_argument("--seed", type=value, default=0)
    notebooks = commands.add_parser(
        "notebooks", parents=[shared], prog="./run_all.sh", help="run notebooks through papermill", allow_abbrev=False,
        description="Regenerate tables and figures: run the notebooks of all rows, or of --rows, through papermill.",
    )  # fmt: skip
    notebooks.add_argument("--stale", action="store_true", help="do runs again that other training code made")
    notebooks.add_argument("--rows", type=words, default=None, help="e.g. mnist,svhn (default: all)")
    notebooks.add_argument("--only", type=words, help="numbers of notebooks, e.g. 06,09; 07 follows (default: all)")
    notebooks.add_argument("--seeds", type=lambda text: [value(x) for x in words(text)], help="e.g. 0,1,2")
    notebooks.add_argument(
        "--jobs", help="notebooks side by side, each on a GPU or cores of its own, or auto (default in smoke; else 1)"
    )
    notebooks.add_argument(
        "--slurm", type=options, metavar="NAME=VALUE,...",
        help="train as one Slurm array, e.g. partition=gpu,time=4:00:00, then go on here",
    )  # fmt: skip
    notebooks.add_argument(
        "--array-parallelism", type=int, default=8, metavar="N", help="most tasks at a time (default: 8)"
    )
    notebooks.add_argument("--collect", action="store_true", help="train nothing: go on with what Slurm has finished")
    campaign = commands.add_parser("campaign", allow_abbrev=False, help="how far the list of runs is, and its cost")
    campaign.add_argument(
        "--results-dir", type=folder, default=ROOT / "results", help="where to look (default: results)"
    )
    campaign.add_argument("--runs", action="store_true", help="list every run")
    campaign.add_argument("--rate", type=float, help="your machine's 10^9 multiply-accumulates a second, for the hours")
    return main


def train_rows(arguments: argparse.Namespace) -> int:
    from odnlib import data, experiment, progress, recipes

    overrides, ends = dict(arguments.overrides), time.monotonic() + (arguments.time_budget or math.inf)
    protocol = arguments.protocol or recipes.usual_protocol(arguments.profile)
    problems: list[str] = [] if arguments.variants else ["variants '' name none: choose from odn, full"]
    if recipes.OWN.fullmatch(arguments.row):
        problems.append(f"row {arguments.row!r} is of own images: 10_your_dataset trains with them")
    planned, device = [], ""
    try:
        device = experiment.choose_device(arguments.device)
    except recipes.RecipeError as error:
        problems.append(str(error))
    for variant in arguments.variants:
        try:
            chosen = (arguments.row, variant, arguments.profile, protocol, arguments.seed)
            planned.append(recipes.resolve(*chosen, **overrides))
        except recipes.RecipeError as error:
            problems += [line for line in str(error).splitlines() if line not in problems]
    if problems:
        raise recipes.RecipeError("\n".join(problems))
    images = data.load(planned[0], arguments.data_dir, device)
    for recipe in planned:
        with progress.ProgressBar(recipe) as bar:
            settings = {"fresh": arguments.fresh, "wait": False, "budget_s": ends - time.monotonic()}
            folder = experiment.run(recipe, images, Path(arguments.results_dir), [bar], **settings)
        print(f"{folder}: {json.dumps(json.loads((folder / 'result.json').read_text()))}", flush=True)
    return 0


def main_thread() -> bool:
    return threading.current_thread() is threading.main_thread()


DONE, FAILED, REFUSED, STOPPED = 0, 1, 2, 75  # exit codes; 75 (EX_TEMPFAIL): nothing is lost, start again to go on


def main(arguments: list[str] | None = None) -> int:
    """Exit code: 0 done, 1 something failed, 2 bad input, 75 stopped or held by another process."""
    parsed = parser().parse_args(arguments)
    from odnlib import checkpoint, data, experiment, recipes, results, trainer
    from odnlib.notebooks import runner
    from odnlib.verdict import campaign

    said = logging.StreamHandler()
    said.setFormatter(logging.Formatter("odnlib: %(message)s"))
    said.setLevel(logging.WARNING if sys.stderr.isatty() else logging.INFO)  # a line a minute where there is no bar
    checkpoint.log.addHandler(said)
    before = signal.signal(signal.SIGTERM, signal.default_int_handler) if main_thread() else None  # as Ctrl-C
    again = "the same command" + " without --fresh" * getattr(parsed, "fresh", False)
    try:
        commands = {"run": train_rows, "notebooks": runner.run_notebooks, "campaign": campaign.show}
        return commands[parsed.command](parsed)
    except (checkpoint.Stopped, experiment.Held) as stop:
        print(f"odnlib: {str(stop).replace('the same command', again)}", file=sys.stderr)
        return STOPPED
    except KeyboardInterrupt:
        print(f"odnlib: stopped; {again} goes on from what was kept", file=sys.stderr)
        return STOPPED
    except recipes.RecipeError as error:
        print("\n".join(f"odnlib: {line}" for line in str(error).splitlines()), file=sys.stderr)
        return REFUSED
    except OSError as error:  # a folder that cannot be written, a full disk
        where = f"{error.filename or parsed.results_dir}: {error.strerror or error}"
        advice = "make room or choose another --results-dir, and start again"
        print(f"odnlib: {where}; what was kept before is whole: {advice}", file=sys.stderr)
        return FAILED
    except (data.DataError, results.RunConflict, trainer.TrainingDiverged, experiment.OutOfMemory) as error:
        print(f"odnlib: {error}", file=sys.stderr)
        return FAILED
    finally:
        checkpoint.log.removeHandler(said)
        if before is not None:
            signal.signal(signal.SIGTERM, before)


if __name__ == "__main__":
    sys.exit(main())
