"""The command line: `python -m odnlib run` trains without a notebook."""

import argparse
import errno
import json
import logging
import sys
from functools import partial
from pathlib import Path

from odnlib import data, experiment, recipes
from odnlib.data import DataError
from odnlib.experiment import OutOfMemory
from odnlib.files import ROOT, FolderLocked, RunConflict, read_json
from odnlib.trainer import TrainingDiverged, log

EXIT_FAILED, EXIT_REFUSED, EXIT_BUSY, EXIT_INTERRUPTED = 1, 2, 75, 130  # 75 (EX_TEMPFAIL): another process is at it
EXIT_CODE_OF_ERROR = {recipes.RecipeError: EXIT_REFUSED, FolderLocked: EXIT_BUSY}
EXIT_CODE_OF_ERROR |= dict.fromkeys((DataError, RunConflict, TrainingDiverged, OutOfMemory), EXIT_FAILED)


def parse_value(text: str) -> object:
    """Return what a command-line value means: "5" -> 5, "0.1" -> 0.1, "true" -> True, "none" -> None; else the text."""
    try:
        return json.loads({"none": "null"}.get(text.lower(), text.lower()))
    except ValueError:
        return text


def parse_override(text: str) -> tuple[str, object]:
    """Return (name, value) of a text NAME=VALUE: "width=16" -> ("width", 16); ArgumentTypeError if it has no "="."""
    name, equals, content = text.partition("=")
    if not equals:
        raise argparse.ArgumentTypeError(f"{text!r} is not NAME=VALUE, e.g. width=16")
    return name, parse_value(content)


def split_at_commas(text: str) -> list[str]:
    """Return the list of the words of a text between its commas, without empty ones: "a,b" -> ["a", "b"]."""
    return [word for word in text.split(",") if word]


def build_shared_options() -> argparse.ArgumentParser:
    """Return an argparse parent with the options of `python -m odnlib` and run_all.sh, e.g. --profile and --set."""
    shared = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    add = shared.add_argument
    add("--profile", default="smoke", help="smoke (default), reduced, quick or paper")
    add("--rule", default="", help="released, printed or equal (default: released; in quick, equal)")
    folder = {"type": lambda text: Path(text).expanduser()}
    add("--data-dir", **folder, default=ROOT / "data", help="where torchvision keeps the datasets (default: data)")
    add("--results-dir", **folder, default=ROOT / "results/mine", help="where to write (default: results/mine)")
    add("--device", default="auto", help="auto (default), cpu, cuda, cuda:1, mps")
    add("--fresh", action="store_true", help="start over; what is there is kept beside it")
    several = {"action": "append", "default": [], "metavar": "NAME=VALUE"}
    add("--set", dest="overrides", type=parse_override, **several, help="a setting, e.g. width=16; may be repeated")
    return shared


def build_parser() -> argparse.ArgumentParser:
    """Return the argparse parser of `python -m odnlib run`: the shared options, --row, --variants and --seed."""
    main = argparse.ArgumentParser(prog="python -m odnlib", description=__doc__)
    run = main.add_subparsers(required=True).add_parser("run", parents=[build_shared_options()], help="train one row")
    run.add_argument("--row", required=True, help="mnist, emnist, fashion_mnist, svhn or cifar10")
    run.add_argument("--variants", type=split_at_commas, default=["odn", "full"], help="odn,full (default: both)")
    run.add_argument("--seed", type=parse_value, default=0)
    return main


def train_row(arguments: argparse.Namespace) -> None:
    """Train one dataset's networks as the parsed command line asks; print each run's folder and result (JSON)."""
    if recipes.OWN_ROW_PATTERN.fullmatch(arguments.row):
        raise recipes.RecipeError(f"row {arguments.row!r} is of own images: 10_your_dataset trains with them")
    device = experiment.choose_device(arguments.device)
    shared = dict(arguments.overrides) | {name: getattr(arguments, name) for name in ("row", "profile", "rule", "seed")}
    planned = recipes.resolve_all(shared | {"variant": variant} for variant in arguments.variants or [""])
    for recipe in planned:
        images = partial(data.load_splits, recipe, arguments.data_dir, device)
        place = experiment.run(recipe, images, arguments.results_dir, fresh=arguments.fresh, wait=False)
        print(f"{place}: {json.dumps(read_json(place / 'result.json'))}", flush=True)


def run_command(command: object, arguments: argparse.Namespace) -> int:
    """Call `command(arguments)` and return its exit code or 0; for an expected error print it and return its code."""
    again = "the same command" + " without --fresh" * getattr(arguments, "fresh", False)
    try:
        return command(arguments) or 0
    except KeyboardInterrupt:
        code, told = EXIT_INTERRUPTED, f"interrupted; what was trained is kept, and {again} goes on from there"
    except OSError as error:  # a folder that cannot be written, a full disk
        where = f"{error.filename or arguments.results_dir}: {error.strerror or error}"
        full = error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
        advice = f"{'make room' if full else 'mend it'} or choose another --results-dir, and start again"
        code, told = EXIT_FAILED, f"{where}; what was kept before is whole: {advice}"
    except tuple(EXIT_CODE_OF_ERROR) as error:
        code, told = EXIT_CODE_OF_ERROR[type(error)], str(error)
    print("\n".join(f"odnlib: {line}" for line in told.splitlines()), file=sys.stderr)
    return code


def main(arguments: list[str] | None = None) -> int:
    """Run the command line; return 0: done, 1: failed, 2: invalid input, 75: run in use elsewhere, 130: interrupted."""
    said = logging.StreamHandler()
    said.setFormatter(logging.Formatter("odnlib: %(message)s"))
    said.setLevel(logging.WARNING if sys.stderr.isatty() else logging.INFO)  # a line a minute where there is no bar
    log.addHandler(said)
    try:
        return run_command(train_row, build_parser().parse_args(arguments))
    finally:
        log.removeHandler(said)


if __name__ == "__main__":
    sys.exit(main())
