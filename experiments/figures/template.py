"""The page of the report: what its template is given, and the numbers that it tells."""

import json
import pathlib
import re
from collections.abc import Hashable
from typing import Any

import jinja2
import pandas as pd
from markupsafe import Markup, escape

from data_prep.planted import simulated
from epi2expr_jax.files import read_json
from epi2expr_jax.genome import ASSEMBLIES, listing
from epi2expr_jax.perturb.mark_null import permutable
from epi2expr_jax.perturb.summary import NEEDED
from epi2expr_jax.predict.stack import explained
from epi2expr_jax.roadmap import cell_name
from epi2expr_jax.scores import table as scoring
from epi2expr_jax.scores.agreement import best_assays, quality_correlations
from epi2expr_jax.scores.intervals import LEAST_SCORED, ONE_VALUE
from epi2expr_jax.scores.ranking import NO_ANSWER
from epi2expr_jax.screens.predicted import COMPLETED, LOSS
from epi2expr_jax.screens.scoring import ALL, REACH
from epi2expr_jax.study import statements, tables
from epi2expr_jax.units import DEFAULT_UNIT, unit_words
from epi2expr_jax.words import doubts, methods, sentences
from experiments.figures.altered_marks import one_change
from experiments.figures.gene_browser import MOST_EDITS, as_script
from experiments.figures.page import headline
from experiments.figures.studies import MOST_MODELS, MOST_PANELS, called
from experiments.figures.style import unit_of
from experiments.figures.training import MOST_CURVES

MOST_EFFECTS = 20
MOST_COPIES = 20
_TEMPLATES = pathlib.Path(__file__).resolve().parent.parent


def page_of(
    run_dir: pathlib.Path,
    card: dict[str, Any],
    content: dict[str, pd.DataFrame],
    runs: pd.DataFrame,
    figures: dict[str, dict[str, str]],
    certificate: Any,
    gained: str,
    controls: list[str],
    browser: dict[str, Any],
    blacklist: dict[str, Any] | None,
) -> str:
    """The page as HTML.

    Args:
        content: the page's tables by name; some may be empty.
        runs: as `cells_of`.
        figures: by name, the address of each, wide and narrow.
        certificate: what `experiments.verify` found, a `cli.certificate.Certificate`; or None.
        gained: from which assays the run gains more than another; or nothing.
        controls: what those of the other runs that are controls are for.
        browser: from `gene_browser.browser_data`.
        blacklist: as for `words.methods.excluded`.
    """
    rows = headline(content["ranking"])
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_TEMPLATES),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"number": sentences.number, "duration": duration, "listing": listing}
    environment.filters |= {"called": _called, "named": called, "breakable": breakable}
    altered = _altered(content["effects"], content["null"])
    kinds, cells = card["store"]["groups"], cells_of(card, runs, content["ranking"])
    quality = content["quality"]
    first_attempt = runs["restarted"].fillna(0) if "restarted" in runs else 0
    made_up = simulated(gene["id"] for gene in browser["genes"])
    among = bool(len(content["models"]) or gained)
    given, lacking = (
        {name: bool("low" in table and table["low"].isna().eq(none).any())
         for name, table in content.items()}
        for none in (False, True)
    )  # fmt: skip
    return environment.get_template("report.html.j2").render(
        name="/".join(run_dir.resolve().parts[-2:]),
        card=card,
        request_json=json.dumps({k: v for k, v in card.items() if k != "populations"}, indent=1),
        splits=_splits(run_dir),
        rows=rows.to_dict("records"),
        kinds={
            assay: "+".join(dict.fromkeys(kinds[a] for a in assay.split("+") if kinds.get(a)))
            for assay in rows["assay"]
        },
        over_all=bool(rows["cell"].iloc[0] == scoring.ALL),
        cells=cells,
        runs=runs.to_dict("records"),
        taken=(runs["epochs"] - first_attempt).astype(int).to_list(),
        statuses=runs["status"].value_counts().to_dict(),
        statements=statements.of_run(run_dir, among),
        among=among,
        given=given,
        lacking=lacking,
        explained=explained(content["baselines"]["model"]),
        configs=configs(card),
        control=sentences.control(card),
        one_value=ONE_VALUE,
        least_scored=LEAST_SCORED,
        no_answer=NO_ANSWER,
        idle=bool(sentences.one_value(content["baselines"]).any()),
        scope=statements.scope(content["ranking"], cells),
        own_cells=statements.answer_cells(content["ranking"]),
        figures=figures,
        unit=unit_of_run(card),
        linear=unit_words(_expression_unit(card)),
        tables={name: table.to_dict("records") for name, table in content.items()},
        needed=NEEDED,
        best_rows=_best(content, len(cells) > 1).to_dict("records"),
        quality=(quality_correlations(quality) if len(quality) else quality).to_dict("records"),
        abroad=_abroad(content["across_cells"]),
        changed=sentences.changes(content["between_cells"]),
        altered=altered,
        said_of_altered=doubts.altered(
            content["effects"],
            content["null"],
            pd.DataFrame(altered),
            len(altered) == 0 or permutable(content["effects"], card),
        ),
        methods=methods,
        blacklist=blacklist,
        screened=_screened(content["crispri"], content["crispri_leads"]),
        gained=gained,
        controls=controls,
        certificate=certificate,
        scoring=scoring,
        browser=browser,
        browser_json=as_script(browser),
        simulated=made_up,
        assembly=_assembly(card["store"]["assembly"], made_up),
        most_edits=MOST_EDITS,
        most_curves=MOST_CURVES,
        most_copies=MOST_COPIES,
        most_panels=MOST_PANELS,
        most_models=MOST_MODELS,
    )


def _best(content: dict[str, pd.DataFrame], many: bool) -> pd.DataFrame:
    """The assay with the highest score in every cell, among all genes and in each group.

    Args:
        many: whether there is more than one cell; of one, all genes are the ranking itself.
    """
    parts = [best_assays(content["ranking"]).assign(group="all genes")] if many else []
    if len(content["groups"]):
        for name, part in content["groups"].groupby("group"):
            parts.append(best_assays(part).assign(group=name))
    table = pd.concat(parts, ignore_index=True) if parts else pd.DataFrame()
    if len(table):
        table["best"] = [doubts.is_best(row) for row in table.to_dict("records")]
    if many and len(statements.answer_cells(content["ranking"])) > 1:
        return table
    return table if table.empty else table[table["cell"] != scoring.ALL]


def configs(card: dict[str, Any]) -> tuple[dict[str, Any], list[tuple[int, dict[str, Any]]]]:
    """The models' configuration: what is the same for all runs, and by how many runs what is not.

    Args:
        card: of the run.
    """
    parts = [(len(part["runs"]), part["model_config"]) for part in card["populations"]]
    first = parts[0][1]
    absent = object()
    same = {key: value for key, value in first.items()
            if all(own.get(key, absent) == value for _, own in parts)}  # fmt: skip
    counts: dict[str, int] = {}
    differ = {}
    for n, config in parts:
        own = {key: value for key, value in config.items() if key not in same}
        counts[repr(own)] = counts.get(repr(own), 0) + n
        differ[repr(own)] = own
    return same, [(counts[key], own) for key, own in differ.items() if own]


def _abroad(table: pd.DataFrame) -> list[dict[Hashable, Any]]:
    """For each assay set, how models do in cells they were not trained on."""
    if table.empty or not (~table["seen"]).any():
        return []
    means = table.groupby(["assays", "seen"]).mean(numeric_only=True).unstack("seen")
    unseen = table[~table["seen"]].groupby("assays")
    rows = pd.DataFrame(
        {
            "own": means["pearson"].get(True),
            "other": means["pearson"][False],
            "baseline": means["baseline"][False],
            "deviation": means["deviation"][False],
            "beaten": unseen["lead_low"].agg(lambda low: int((low > 0).sum())),
            "tests": unseen.size(),
        }
    )
    return rows.sort_values("other", ascending=False).reset_index().to_dict("records")


def _altered(table: pd.DataFrame, null: pd.DataFrame) -> list[dict[Hashable, Any]]:
    """The effects that the report tells: of one change, at the places where it does most."""
    if table.empty:
        return []
    rows = one_change(table)
    if len(null):
        own = null[[*tables.NULL.key, "null_low", "null_high", "p"]]
        rows = rows.merge(own, on=[*tables.NULL.key], how="left")
    strongest = rows["effect"].abs().sort_values(ascending=False, kind="stable").index
    return rows.loc[strongest].head(MOST_EFFECTS).to_dict("records")


def _screened(rows: pd.DataFrame, leads: pd.DataFrame) -> list[dict[Hashable, Any]]:
    """Scores of the pairs of a screen in reach, then of all; and what predictions lead each by."""
    shown = pd.concat([rows[rows["pairs"] == name] for name in (REACH + ALL, ALL)])
    ours = leads[leads["score"].isin([LOSS, COMPLETED])].drop(columns="score")
    ours = ours[["pairs", "rival", "lead", "low", "high"]].rename(columns={"rival": "score"})
    shown = shown.merge(ours, on=["pairs", "score"], how="left", suffixes=("", "_lead"))
    return shown.to_dict("records")


def breakable(text: str) -> Markup:
    """A text that may also be broken after a plus, as of a set of assays; in no flag."""
    whole = re.sub(
        r"(?<!\w)--\w+(=[\w.,-]*\w)?", r'<span class="flag">\g<0></span>', str(escape(text))
    )
    return Markup(whole.replace("+", "+<wbr>"))


def duration(seconds: float) -> str:
    """A time in words."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s"


def cells_of(card: dict[str, Any], runs: pd.DataFrame, ranked: pd.DataFrame) -> list[str]:
    """Where models were tested. A cell whose runs all failed is a hole, not absent.

    Args:
        runs: every run of the card, columns cell, assay, status, …
        ranked: the ranking.
    """
    tested = [cell for cell in dict.fromkeys(ranked["cell"]) if cell != scoring.ALL]
    trained = [cell for cell in dict.fromkeys(runs["cell"]) if cell in card["store"]["cells"]]
    return list(dict.fromkeys([*trained, *tested]))


def _expression_unit(card: dict[str, Any]) -> str:
    return card["store"].get("expression_unit", DEFAULT_UNIT)


def unit_of_run(card: dict[str, Any]) -> str:
    """What a run predicts, in words."""
    return unit_of(card["target"], _expression_unit(card))


def _splits(run_dir: pathlib.Path) -> dict[str, Any]:
    return read_json(run_dir / "splits.json", "list of folds", "train again")


def _assembly(name: str, made_up: bool) -> str:
    """An assembly in words; of a file's name alone a reader would not know what it is."""
    if name in ASSEMBLIES:
        return f"assembly {name}"
    return "a simulated genome" if made_up else f'chromosome lengths of the file "{name}"'


def _called(cell: str) -> str:
    """A cell with its name, where it is one of the Roadmap's."""
    if cell == scoring.ALL:
        return "mean over cells"
    return f"{cell} {cell_name(cell)}".strip()
