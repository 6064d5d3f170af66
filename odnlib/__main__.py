"""The command line: `python -m odnlib run` trains without a notebook."""

import argparse
import errno
import json
import logging
import sys
from functools import partial
from pathlib import Path

from odnlib import data, experiment, recipes
from odnlib.files import ROOT, Held, RunConflict, read_json
from odnlib.trainer import TrainingDiverged, log

FAILED, REFUSED, BUSY, INTERRUPTED = 1, 2, 75, 130  # exit codes beside 0; 75 (EX_TEMPFAIL): another process is at it
CODES = dict.fromkeys((data.DataError, RunConflict, TrainingDiverged, experiment.OutOfMemory), FAILED)
CODES |= {recipes.RecipeError: REFUSED, Held: BUSY}


def value(text: str) -> object:
    """Parse a command-line value: "5" -> 5, "0.1" -> 0.1, "true" -> True, "none" -> None; else it stays text."""
    try:
        return json.loads({"none": "null"}.get(text.lower(), text.lower()))
    except ValueError:
        return text


def override(text: str) -> tuple[str, object]:
    """Parse a setting given as NAME=VALUE: "width=16" -> ("width", 16); argparse.ArgumentTypeError without "="."""
    name, equals, content = text.partition("=")
    if not equals:
        raise argparse.ArgumentTypeError(f"{text!r} is not NAME=VALUE, e.g. width=16")
    return name, value(content)


def words(text: str) -> list[str]:
    """Split a text at its commas into a list without empty words: "a,b" -> ["a", "b"]."""
    return [word for word in text.split(",") if word]


def folder(text: str) -> Path:
    return Path(text).expanduser()


def shared_options() -> argparse.ArgumentParser:
    """Return a parent parser with the options that this command and run_all.sh (training by notebook) share."""
    shared = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    add = shared.add_argument
    add("--profile", default="smoke", help="smoke (default), reduced, quick or paper")
    add("--rule", default="", help="released, printed or equal (default: released; in quick, equal)")
    add("--data-dir", type=folder, default=ROOT / "data", help="where torchvision keeps the datasets (default: data)")
    add("--results-dir", type=folder, default=ROOT / "results/mine", help="where to write (default: results/mine)")
    add("--device", default="auto", help="auto (default), cpu, cuda, cuda:1, mps")
    add("--fresh", action="store_true", help="start over; what is there is kept beside it")
    settings = "override a setting of the recipe, e.g. width=16 depth_epochs=5; may be repeated"
    add("--set", dest="overrides", type=override, action="append", default=[], metavar="NAME=VALUE", help=settings)
    return shared


def parser() -> argparse.ArgumentParser:
    main = argparse.ArgumentParser(prog="python -m odnlib", description=__doc__)
    run = main.add_subparsers(required=True).add_parser("run", parents=[shared_options()], help="train one row")
    run.add_argument("--row", required=True, help="mnist, emnist, fashion_mnist, svhn or cifar10")
    run.add_argument("--variants", type=words, default=["odn", "full"], help="odn,full (default: both)")
    run.add_argument("--seed", type=value, default=0)
    return main


def train(arguments: argparse.Namespace) -> None:
    """Train the requested variants (odn, full) of one dataset and print each run's folder and its result as JSON."""
    if recipes.OWN.fullmatch(arguments.row):
        raise recipes.RecipeError(f"row {arguments.row!r} is of own images: 10_your_dataset trains with them")
    device = experiment.choose_device(arguments.device)
    shared = dict(arguments.overrides) | {name: getattr(arguments, name) for name in ("row", "profile", "rule", "seed")}
    planned = recipes.resolve_all(shared | {"variant": variant} for variant in arguments.variants or [""])
    for recipe in planned:
        images = partial(data.load, recipe, arguments.data_dir, device)
        place = experiment.run(recipe, images, arguments.results_dir, fresh=arguments.fresh, wait=False)
        print(f"{place}: {json.dumps(read_json(place / 'result.json'))}", flush=True)


def guarded(command: object, arguments: argparse.Namespace) -> int:
    """Call `command(arguments)` and return an exit code (see `main`); expected errors become one line on stderr."""
    again = "the same command" + " without --fresh" * getattr(arguments, "fresh", False)
    try:
        return command(arguments) or 0
    except KeyboardInterrupt:
        code, told = INTERRUPTED, f"interrupted; what was trained is kept, and {again} goes on from there"
    except OSError as error:  # a folder that cannot be written, a full disk
        where = f"{error.filename or arguments.results_dir}: {error.strerror or error}"
        full = error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
        advice = f"{'make room' if full else 'mend it'} or choose another --results-dir, and start again"
        code, told = FAILED, f"{where}; what was kept before is whole: {advice}"
    except tuple(CODES) as error:
        code, told = CODES[type(error)], str(error)
    print("\n".join(f"odnlib: {line}" for line in told.splitlines()), file=sys.stderr)
    return code


def main(arguments: list[str] | None = None) -> int:
    """Return an exit code: 0 done, 1 failed, 2 invalid input, 75 another process holds the run, 130 interrupted."""
    said = logging.StreamHandler()
    said.setFormatter(logging.Formatter("odnlib: %(message)s"))
    said.setLevel(logging.WARNING if sys.stderr.isatty() else logging.INFO)  # a line a minute where there is no bar
    log.addHandler(said)
    try:
        return guarded(train, parser().parse_args(arguments))
    finally:
        log.removeHandler(said)


if __name__ == "__main__":
    sys.exit(main())
