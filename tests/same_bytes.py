"""Do two checkouts train to the same bytes? `python tests/same_bytes.py OLD NEW`, each a folder or a commit.

Trains the small cases of `same_bytes.json` (--short: two) in both, undisturbed and killed at random instants and gone
on with, and compares every CSV, result and network. Exit code 1: some differ, or a case did not do what it is named
after. Whoever changes results on purpose changes TRAINING_VERSION and `same_bytes.base`, what the test compares with.
"""

import argparse
import importlib.util
import itertools
import json
import multiprocessing
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import types
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy

TABLE = json.loads(Path(__file__).with_suffix(".json").read_text())
CASES = {name: TABLE["names"] | TABLE["settings"] | case for name, case in TABLE["cases"].items()}
TEST_IMAGES = 100  # in place of `embedded.TEST_IMAGES`


def stand_in_images(row):
    """Like `draw_stand_ins`: a texture of 4 x 4 pixels a class, under noise; one label in eight is drawn anew."""
    channels, size = (1, 28) if "mnist" in row else (3, 32)
    draw = numpy.random.default_rng(list(row.encode()))
    textures = numpy.tile(draw.integers(0, 256, (10, channels, 4, 4)), (size // 4, size // 4))
    labels = draw.integers(0, 10, 220 + 2 * TEST_IMAGES)
    images = textures[labels] + draw.integers(-60, 61, (len(labels), channels, size, size))
    labels[::8] = draw.integers(0, 10, len(labels[::8]))
    return images.clip(0, 255).astype("uint8"), labels.astype("int64")


def command(case, folder):
    rule, settings = case["rule"], {key: case[key] for key in TABLE["settings"]}
    has_rules = '"--rule"' in Path("odnlib/__main__.py").read_text()
    if not has_rules:
        rule = {"equal": "fast"}.get(rule, rule)
        settings |= TABLE["settings_of_protocol"].get(rule, TABLE["settings_of_protocol"]["others"])
    elif "augmented" in case:
        settings |= TABLE["settings_of_augmented"]
    words = ["--rule" if has_rules else "--protocol", rule, "--row", case["row"], "--variants", case["variant"]]
    words += ["--seed", str(case["seed"]), "--profile", "smoke", "--results-dir", str(folder)]
    return ["run", *words, *(x for key, value in settings.items() for x in ("--set", f"{key}={value}".lower()))]


def attempt(main, case, folder, seconds=600.0):
    """Exit code of a case's command in a fork of this process; after so many seconds it and its children are killed."""

    def begin():
        os.dup2(os.dup2(os.open(folder / "said.txt", os.O_WRONLY | os.O_CREAT | os.O_TRUNC), 1), 2)
        sys.exit(main(command(case, folder)))

    folder.mkdir(parents=True, exist_ok=True)
    process = multiprocessing.get_context("fork").Process(target=begin, daemon=True)
    process.start()
    os.setpgid(process.pid, process.pid)
    process.join(seconds)
    if process.is_alive():
        os.killpg(process.pid, signal.SIGKILL)
    process.join()
    return process.exitcode


def serve(out, kills, cases):
    """In a checkout: train the cases, and tell on stdout what came of it."""
    sys.path.insert(0, os.getcwd())
    for gone in ("submitit", "psutil"):  # what 2a8bc55 imports, does not train with, and need not be installed today
        if not importlib.util.find_spec(gone):
            sys.modules[gone] = types.ModuleType(gone)
    parts = ("checkpoint", "trainer", "experiment", "progress", "notebooks/runner", "verdict/campaign")
    there = [f"odnlib.{part.replace('/', '.')}" for part in parts if Path("odnlib", f"{part}.py").exists()]
    for name in ("torch._dynamo", *there):  # once for all attempts
        importlib.import_module(name)
    main, embedded = importlib.import_module("odnlib.__main__").main, importlib.import_module("odnlib.embedded")
    assert Path(embedded.__file__).is_relative_to(os.getcwd()), f"{embedded.__file__} is not of {os.getcwd()}"
    embedded.draw_stand_ins = embedded.stand_ins = embedded.load = stand_in_images  # the last two in older checkouts
    embedded.TEST_IMAGES = embedded.HELD_BACK = TEST_IMAGES
    print(f"{os.getcwd()}: {sys.executable}, torch {sys.modules['torch'].__version__}", file=sys.stderr)
    told = {}
    for name in cases:
        start, code = time.monotonic(), attempt(main, CASES[name], out / name / "undisturbed")
        told[name] = {"undisturbed": code, "seconds": time.monotonic() - start, "kept": 0}
    often = {"SAVE_EVERY_SECONDS": 0.05, "MIN_SECONDS_BETWEEN_SAVES": 0.0}
    often |= {"SAVE_EVERY": 0.05, "SAVES_APART": 0.0}  # what older checkouts call them
    for module in [x for name, x in sys.modules.items() if name.startswith("odnlib.")]:
        vars(module).update({name: seconds for name, seconds in often.items() if hasattr(module, name)})
    for name, case in told.items():
        folder, instants, longest = out / name / "killed", random.Random(name), case["seconds"]
        for _ in range(10 * kills):
            killed = attempt(main, CASES[name], folder, instants.uniform(0.1, longest)) == -signal.SIGKILL
            longest *= 1.2 if killed else 0.8  # as nothing may have been kept yet; as it was faster
            if not killed:
                shutil.rmtree(folder)  # once more from the start
            case["kept"] += any(folder.glob("*/runs/*/*checkpoint*"))
            if case["kept"] == kills:
                break
        case["killed"] = attempt(main, CASES[name], folder)
    print(json.dumps(told))


def places(file):
    """What stands where: by cell in CSV, by key in JSON (floats to the last bit), else by byte."""
    if not file.exists():
        return {"file": f"missing in {file.parent}"}
    left_out, content = TABLE["left_out"].get(file.name, ()), file.read_bytes()
    if file.suffix == ".json":
        stand = {TABLE["renamed"].get(key, key): x for key, x in json.loads(content).items() if key not in left_out}
        return {k: json.dumps(TABLE["called"].get(k, {}).get(str(x), x), sort_keys=True) for k, x in stand.items()}
    if file.suffix == ".csv":
        columns = itertools.zip_longest(*(line.split(",") for line in content.decode().split("\n")))
        kept = [column for column in columns if column[0] not in left_out]
        return {f"column {i} {x[0]}, line {n}": cell for i, x in enumerate(kept) for n, cell in enumerate(x, 1)}
    return {f"byte {i}": content[i : i + 16].hex() for i in range(0, len(content), 16)}


def differences(one, other):
    """A line for each file of two run folders that is not the same."""
    names, lines = {file.name for folder in (one, other) for file in folder.iterdir()} | set(TABLE["expected"]), []
    for name in sorted(names):
        left, right = places(one / name), places(other / name)
        unlike = [key for key in left | right if left.get(key) != right.get(key)]
        if unlike and not any(Path(name).match(pattern) for pattern in TABLE["not_compared"]):
            lines.append(f"{name}: {len(unlike)} x, {unlike[0]}: {left.get(unlike[0])} / {right.get(unlike[0])}")
    return lines


def not_itself(case, folder):
    """A line for each thing that a run is named after and did not do."""
    recipe, result = places(folder / "recipe.json"), json.loads((folder / "result.json").read_text())
    header, *lines = (line.split(",") for line in (folder / "epochs.csv").read_text().split())
    epochs = [dict(zip(header, line, strict=True)) for line in lines]
    stages = [list(group)[-1] for _, group in itertools.groupby(epochs, lambda x: (x["stage"], x["depth"]))]
    did = ", ".join(TABLE["did"]["stage"].format_map(x) for x in stages) + TABLE["did"]["end"].format_map(result)
    wanted = re.escape(case["did"]).replace(r"\*", "[^)]+")
    lines = [f"did {did}; wanted {case['did']}"] * (not re.fullmatch(wanted, did))
    return lines + [f"{x}: {recipe[x]}, not {case[x]}" for x in TABLE["names"] if recipe[x] != json.dumps(case[x])]


def judge(name, out, told):
    """A line for each thing that is not as it should be with a case."""
    lines, folders = [], {}
    for house, way in itertools.product(told, ("undisturbed", "killed")):
        case, folder = told[house][name], out / house / name / way
        if case[way] or not case["kept"]:
            said = (folder / "said.txt").read_text()[-300:]
            return [f"{house} {way}: exit code {case[way]}, {case['kept']} kills with something kept: {said}"]
        (recipe,) = folder.glob("*/runs/*/recipe.json")
        folders[f"{house} {way}"] = recipe.parent
        lines += [f"{house} {way}: {line}" for line in not_itself(CASES[name], recipe.parent)]
    for one, other in itertools.pairwise(folders):
        lines += [f"{one} / {other}: {line}" for line in differences(folders[one], folders[other])]
    return lines


def train(house, source, out, options):
    checkout = Path(source).resolve()
    if not checkout.is_dir():
        checkout, packed = out / f"checkout {house}", out / f"{house}.tar"
        subprocess.run(["git", "archive", "-o", packed, source, "odnlib"], cwd=Path(__file__).parent.parent, check=True)
        shutil.unpack_archive(packed, checkout)
    python = options.python or shutil.which(checkout / ".venv/bin/python") or sys.executable
    changed = {"PYTHONPATH": "", "PYTHONDONTWRITEBYTECODE": "", "CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"}
    line = [python, __file__, *sys.argv[1:], "--serve", out / house]
    return house, json.loads(subprocess.check_output(line, cwd=checkout, env=os.environ | changed))


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("sources", nargs=2, metavar=("OLD", "NEW"))
    parser.add_argument("--cases", default=list(CASES), type=lambda names: names.split(","), help="e.g. patience,whole")
    parser.add_argument("--short", action="store_const", const=["released", "single_depth"], dest="cases")
    parser.add_argument("--python", help="for both (default: a checkout's .venv, else the one that runs this)")
    parser.add_argument("--jobs", type=int, default=2, help="checkouts at a time (default: 2)")
    parser.add_argument("--kills", type=int, default=2, help="of each case in each checkout (default: 2)")
    parser.add_argument("--serve", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        return serve(options.serve, options.kills, options.cases)
    with tempfile.TemporaryDirectory() as out, ThreadPoolExecutor(options.jobs) as pool:
        told = dict(pool.map(lambda *x: train(*x, Path(out), options), ("OLD", "NEW"), options.sources))
        judged = {name: judge(name, Path(out), told) for name in options.cases}
    for name, lines in judged.items():
        print(f"{name:16} {'NOT EQUAL' if lines else 'equal'}, {told['NEW'][name]['kept']} kills", *lines, sep="\n    ")
    return int(any(judged.values()))


if __name__ == "__main__":
    sys.exit(main())
