"""The parts of the report's page: Table I as the paper lays it out, the claims as cards, and figures."""

import base64
import html
import io
import re
import textwrap
from collections.abc import Iterable
from pathlib import Path

import pandas as pd
from IPython.display import HTML
from jinja2 import Environment, FileSystemLoader
from matplotlib.colors import to_hex, to_rgb
from PIL import Image

from odnlib.paper import TABLE_1
from studies.overview import GREY, find_look, insert_dataset_titles, shorten_grade
from studies.plots import architecture_title

TEMPLATE_FOLDER = Path(__file__).parent / "templates"
TRAINED, UNTRAINED = "training decides", "no training needed at the printed depth"
HEADINGS_OF_CELL = {
    "depth": (TRAINED, "Depth"), "params_m": (UNTRAINED, "Parameters (M)"), "size_mb": (UNTRAINED, "Size on disk (MB)"),
    "size_reduction_pct": (UNTRAINED, "Size reduction (%)"), "macs_m": (UNTRAINED, "MACs (M)"),
    "test_acc_pct": (TRAINED, "Test accuracy (%)"),
}  # fmt: skip
TITLE_OF_VARIANT = {"full": "whole", "odn": "optimally deep"}
SIGN_AND_COLOR_OF_VERDICT = {  # in the order in which claims are told
    "does not hold": ("✘", "#b84700"), "open": ("?", "#8a3f86"), "holds": ("✔", "#0173b2"),
    "not comparable": ("~", GREY), "not measured": ("·", GREY),
}  # fmt: skip
FIGURE_OF_CLAIM = dict.fromkeys(("warmup_fluctuation", "warmup_convergence", "warmup_jumps"), "warmup_ablation")
FIGURE_OF_CLAIM |= dict.fromkeys(("compress_further", "compression_cannot_reach"), "compression")
FIGURE_OF_CLAIM |= dict.fromkeys(("depth_is_reusable", "expansion_matters"), "reuse")
FIGURE_OF_CLAIM |= {"depth_follows_complexity": "depth_by_dataset", "other_families": "families"}
WORDS_OF_FILE_NAME_PART = {
    "odn": "search", "full": "whole network", "history": "accuracy and loss by epoch", "structure": "size by depth",
    "choice": "accuracy of every depth tried", "overview": "test accuracy against bytes",
}  # fmt: skip
EVIDENCE_PATTERN = re.compile(r"(95 % interval \S+ to \S+, )?n = \d+( (to|and) \d+)?")  # in a claim's reason


def lighten_color(color: str) -> str:
    """Return a colour ("#rrggbb") so pale that black text can be read on it, likewise."""
    return to_hex([0.85 + 0.15 * part for part in to_rgb(color)])


def render_table_1(best: pd.DataFrame) -> HTML:
    """Return Table I in the paper's layout, from `comparison.select_best_evidence`, as HTML: in a cell a sign for
    the grade, the measured value, below it the printed one, n and spread over seeds; coloured by grade.
    """
    words, texts, styles = [], [], []
    for x in best.itertuples():
        words.append(x.verdict if x.verdict == "paper's slip" else shorten_grade(x.grade) or "not measured")
        sign, _, color = find_look(words[-1])
        form = ".3g" if x.cell == "depth" else ".2f"
        measured, spread = ("" if pd.isna(value) else f"{value:{form}}" for value in (x.measured, x.std))
        more = x.why if x.verdict in ("not corroborated", "not reproduced") else ""
        if x.grade.startswith("procedure reproduced"):
            more = shorten_grade(x.grade.partition(", ")[2])  # of how many
        n = f"<br>{f'± {spread}, ' * bool(x.std > 0 and not more)}n = {x.n}" * (x.n > 0)
        n += "".join(f"<br>{line}" for line in textwrap.wrap(more, 17))
        texts.append(f"<b>{sign} {measured}</b><br>{x.paper:{form}} printed{n}")
        styles.append(f"background-color: {lighten_color(color)}")
    best, index = best.assign(text=texts, style=styles), pd.MultiIndex.from_product([TABLE_1, TITLE_OF_VARIANT])
    text, style = (best.pivot(index=["row", "variant"], columns="cell", values=x) for x in ("text", "style"))
    text, style = (x.reindex(index)[list(HEADINGS_OF_CELL)].fillna("") for x in (text, style))
    names = {row: f"{at.title}<br>{architecture_title(at.architecture)}" for row, at in TABLE_1.items()}
    text.index = style.index = pd.MultiIndex.from_product([names.values(), TITLE_OF_VARIANT.values()])
    text.columns = style.columns = pd.MultiIndex.from_tuples(HEADINGS_OF_CELL.values())
    table = text.style.apply(lambda _: style, axis=None).to_html(table_attributes='class="table-1"')
    table = re.sub(r"<th( class=\"blank[^>]*>&nbsp;</)th>", r"<td\1td>", table)  # nothing is the head of nothing
    grades_of_sign = {find_look(grade)[0]: [] for grade in words}
    for grade in dict.fromkeys(words):
        grades_of_sign[find_look(grade)[0]].append(grade)
    signs = " &ensp; ".join(f"<span>{sign} {' or '.join(grades)}</span>" for sign, grades in grades_of_sign.items())
    return HTML(f"<p>{signs}</p>{table}")


def put_in_words(numbers: pd.DataFrame) -> pd.DataFrame:
    """Return rows of `comparison.compare_with_paper` with dataset, network and number in words."""
    cells = {name: title for name, (_, title) in HEADINGS_OF_CELL.items()}
    cells |= {f"found_{name}": f"{title} at the depth found" for name, title in cells.items()}
    words = {"row": insert_dataset_titles, "variant": TITLE_OF_VARIANT.get, "cell": cells.get}
    numbers = numbers.assign(**{column: numbers[column].map(word) for column, word in words.items()})
    return numbers.rename(columns={"row": "dataset", "variant": "network", "cell": "number"})


def render_template(template: str, **values: object) -> HTML:
    """Return a Jinja template in `TEMPLATE_FOLDER`, filled in with values, as HTML."""
    environment = Environment(loader=FileSystemLoader(TEMPLATE_FOLDER), autoescape=True, trim_blocks=True)
    return HTML(environment.get_template(template).render(**values))


def encode_figure(figure: Path) -> str:
    """Return an image file as a data URL, which a page can hold."""
    Image.open(figure).save(written := io.BytesIO(), format="png", optimize=True)
    return f"data:image/png;base64,{base64.b64encode(written.getvalue()).decode()}"


def render_claims(claims: pd.DataFrame, folder: Path) -> HTML:
    """Return the table `claims.judge_claims` as HTML cards that link to figures in `folder`; not measured ones last."""
    shown, unanswered = [], []
    texts = claims.drop(columns="needs_training").map(insert_dataset_titles, na_action="ignore").to_dict("records")
    for claim, needs_training in zip(texts, claims["needs_training"], strict=True):
        claim["needs_training"] = needs_training
        answer = next(answer for answer in SIGN_AND_COLOR_OF_VERDICT if claim["verdict"].startswith(answer))
        sign, color = SIGN_AND_COLOR_OF_VERDICT[answer]
        found = sorted((folder / "figures").glob(f"{FIGURE_OF_CLAIM.get(claim['key'], claim['key'])}*.png"))
        *scale, why = claim["why"].split(" - ", 1) if found or "reduced" in claim["verdict"] else [claim["why"]]
        claim |= {"sign": sign, "color": color, "tint": lighten_color(color), "scale": scale}
        claim["anchor"] = found[0].stem if found else ""
        parts = re.split(r"; (?![^(]*\))", html.escape(why))  # not within brackets
        claim["parts"] = [EVIDENCE_PATTERN.sub(r"<b>\g<0></b>", part) for part in parts]
        (unanswered if answer == "not measured" else shown).append(claim)
    signs = [sign for sign, _ in SIGN_AND_COLOR_OF_VERDICT.values()]
    shown.sort(key=lambda claim: signs.index(claim["sign"]))
    return render_template("claims.html.j2", claims=shown, unanswered=unanswered)


def render_figures(paths: Iterable[Path]) -> HTML:
    """Return image files of figures as HTML, named in words; those of single runs are folded away."""
    kinds = {True: [], False: []}
    for path in sorted(paths):
        of_run, parts = path.stem.endswith(("-history", "-choice", "-structure")), path.stem.split("-")
        words = [WORDS_OF_FILE_NAME_PART.get(x, x.replace("_", " ")) for x in map(insert_dataset_titles, parts)]
        title = ", ".join(words if of_run else words[:2])  # the settings of a study stand in its figure
        kinds[of_run].append({"anchor": path.stem, "title": title, "address": encode_figure(path)})
    return render_template("figures.html.j2", figures=kinds[False], of_runs=kinds[True])
