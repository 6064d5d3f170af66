"""The parts of the report's page: Table I as the paper lays it out, the claims as cards, and figures."""

import base64
import html
import io
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pandas as pd
from IPython.display import HTML
from jinja2 import Environment, FileSystemLoader
from matplotlib.colors import to_hex, to_rgb
from PIL import Image

from odnlib.paper import TABLE_1
from studies.overview import GREY, in_short, look, titled

TEMPLATES = Path(__file__).parent / "templates"
TRAINED, UNTRAINED = "training decides", "no training needed at the printed depth"
COLUMNS = {"depth": (TRAINED, "Depth"), "params_m": (UNTRAINED, "Parameters (M)"),
           "size_mb": (UNTRAINED, "Size on disk (MB)"), "size_reduction_pct": (UNTRAINED, "Size reduction (%)"),
           "macs_m": (UNTRAINED, "MACs (M)"), "test_acc_pct": (TRAINED, "Test accuracy (%)")}  # fmt: skip
NETWORKS = {"full": "whole", "odn": "optimally deep"}
ANSWERS = {"holds": ("✔", "#0173b2"), "does not hold": ("✘", "#b84700"), "open": ("?", "#8a3f86"),
           "not comparable": ("~", GREY), "not measured": ("·", GREY)}  # fmt: skip
FIGURES = {"warmup_fluctuation": "warmup_ablation", "warmup_convergence": "warmup_ablation",
           "warmup_jumps": "warmup_ablation",
           "depth_follows_complexity": "depth_by_dataset", "other_families": "families",
           "compress_further": "compression", "compression_cannot_reach": "compression",
           "depth_is_reusable": "reuse", "expansion_matters": "reuse"}  # of claims  # fmt: skip
WORDS = {"odn": "search", "full": "whole network", "history": "accuracy and loss by epoch",
         "structure": "size by depth", "choice": "accuracy of every depth tried",
         "overview": "test accuracy against bytes", "fronts": "validation accuracy against bytes"}  # fmt: skip
EVIDENCE = re.compile(r"(95 % interval \S+ to \S+, )?n = \d+( (to|and) \d+)?")  # in a claim's reason


def tint(color: str) -> str:
    """Return a colour so pale that black text can be read on it."""
    return to_hex([0.85 + 0.15 * part for part in to_rgb(color)])


def evidence(line: Any) -> str:
    """Return how far a line of comparison.csv goes, in words; a slip of the paper takes precedence."""
    return line.verdict if line.verdict == "paper's slip" else in_short(line.grade) or "not measured"


def cell(line: Any) -> str:
    """Return a cell of Table I as HTML: sign, measured value, below it the printed one, n and spread over seeds."""
    form, n = ".3g" if line.cell == "depth" else ".2f", f"<br>n = {line.n}" * (line.n > 0)
    measured, spread = ("" if pd.isna(x) else f"{x:{form}}" for x in (line.measured, line.std))
    n += f" ± {spread}" * bool(spread)
    return f"<b>{look(evidence(line))[0]} {measured}</b><br>{line.paper:{form}} printed{n}"


def table_1(best: pd.DataFrame) -> HTML:
    """Return Table I in the paper's layout from `comparison.best_evidence`, coloured by grade, signs explained."""
    words = [evidence(line) for line in best.itertuples()]
    styles = [f"background-color: {tint(look(grade)[2])}" for grade in words]
    best = best.assign(text=[cell(line) for line in best.itertuples()], style=styles)
    lines = pd.MultiIndex.from_product([TABLE_1, NETWORKS])
    text, style = (best.pivot(index=["row", "variant"], columns="cell", values=x) for x in ("text", "style"))
    text, style = (x.reindex(lines)[list(COLUMNS)].fillna("") for x in (text, style))
    names = {row: f"{at.title}<br>{at.architecture.replace('resnet', 'ResNet-')}" for row, at in TABLE_1.items()}
    text.index = style.index = pd.MultiIndex.from_product([names.values(), NETWORKS.values()])
    text.columns = style.columns = pd.MultiIndex.from_tuples(COLUMNS.values())
    table = text.style.apply(lambda _: style, axis=None).to_html(table_attributes='class="table-1"')
    table = re.sub(r"<th( class=\"blank[^>]*>&nbsp;</)th>", r"<td\1td>", table)  # nothing is the head of nothing
    signs = " &ensp; ".join(dict.fromkeys(f"<span>{look(grade)[0]} {grade}</span>" for grade in words))
    return HTML(f"<p>{signs}</p>{table}")


def rendered(template: str, **values: object) -> HTML:
    """Return a template of the page, filled in."""
    environment = Environment(loader=FileSystemLoader(TEMPLATES), autoescape=True, trim_blocks=True)
    return HTML(environment.get_template(template).render(**values))


def address(figure: Path, width: int | None = None) -> str:
    """Return a figure as a data address, `width` pixels wide where that is given."""
    picture = Image.open(figure)
    if width:
        picture = picture.convert("RGB").resize((width, picture.height * width // picture.width)).quantize(256)
    picture.save(written := io.BytesIO(), format="png", optimize=True)
    return f"data:image/png;base64,{base64.b64encode(written.getvalue()).decode()}"


def cards(claims: pd.DataFrame, folder: Path) -> HTML:
    """Return the claims as cards with the small figures that lie in `folder`."""
    shown, unanswered = [], []
    texts = claims.drop(columns="needs_training").map(titled, na_action="ignore").to_dict("records")
    for claim, needs_training in zip(texts, claims["needs_training"], strict=True):
        claim["needs_training"] = needs_training
        answer = next(answer for answer in ANSWERS if claim["verdict"].startswith(answer))
        found = sorted((folder / "figures").glob(f"{FIGURES.get(claim['key'], claim['key'])}*.png"))
        *scale, why = claim["why"].split(" - ", 1) if found or "reduced" in claim["verdict"] else [claim["why"]]
        claim |= dict(zip(("sign", "color"), ANSWERS[answer], strict=True)) | {"tint": tint(ANSWERS[answer][1])}
        anchor = found[0].stem if found else ""
        new = found and anchor not in [other["anchor"] for other in shown]
        claim |= {"anchor": anchor, "figure": address(found[0], 560) if new else "", "scale": scale}
        parts = re.split(r"; (?![^(]*\))", html.escape(why))  # not within brackets
        claim["parts"] = [EVIDENCE.sub(r"<b>\g<0></b>", part) for part in parts]
        (unanswered if answer == "not measured" else shown).append(claim)
    return rendered("claims.html.j2", claims=shown, unanswered=unanswered)


def figures(paths: Iterable[Path]) -> HTML:
    """Return figures, named in words; those of single runs are folded away."""
    kinds = {True: [], False: []}
    for path in sorted(paths):
        title = ", ".join(WORDS.get(part, part.replace("_", " ")) for part in path.stem.split("-"))
        of_run = path.stem.endswith(("-history", "-choice", "-structure"))
        kinds[of_run].append({"anchor": path.stem, "title": title, "address": address(path)})
    return rendered("figures.html.j2", figures=kinds[False], of_runs=kinds[True])
