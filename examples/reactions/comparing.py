"""Pairs of trainings that differ in one thing, compared on the same reactions and seeds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from matrix import Run, without_hessians
from results import Results, label, varying
from statistics_of_pairs import by_reaction, mcnemar, paired

from hint_plugins.errors import InputError


def comparisons(results: Results, groups: dict[Run, list[Run]]) -> list[tuple[Run, Run, list[tuple[Run, Run]]]]:
    """Pairs of conditions that differ in one field, the second with the field's first value in the matrix.

    Returns
    -------
    list
        First and second condition, and their finished runs of the same seeds.
    """
    found = []
    for name in varying(groups):
        base = getattr(next(iter(groups)), name)
        for condition in groups:
            try:
                other = without_hessians(replace(condition, **{name: base}))
            except InputError:  # no such training: products without Hessians
                continue
            if other == condition or other not in groups:
                continue
            seeds = {run.seed: run for run in groups[other] if run.name in results.runs}
            pairs = [(seeds[r.seed], r) for r in groups[condition] if r.name in results.runs and r.seed in seeds]
            if pairs:
                found.append((other, condition, pairs))
    return found


def error_changes(
    results: Results, groups: dict[Run, list[Run]], keys: dict[str, tuple[str, str]]
) -> list[dict[str, Any]]:
    """Paired tests over reactions of everything in ``keys``: heading to (table, column)."""
    fields, rows = varying(groups), []
    for first, second, pairs in comparisons(results, groups):
        for heading, (source, column) in keys.items():
            sides = [by_reaction(results.rows(source, runs), column) for runs in zip(*pairs, strict=True)]
            common = sorted(sides[0].keys() & sides[1].keys())
            if common:
                row = {"from": label(first, fields), "to": label(second, fields), "of": heading}
                row |= {"reactions": len(common), "seeds": len(pairs)}
                rows.append(row | paired(*([side[name] for name in common] for side in sides)))
    return rows


def compact(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Rows of :func:`error_changes` as a table: a line a pair, a column a quantity; difference and p."""
    lines: dict[tuple[str, str], dict[str, Any]] = {}
    for row in rows:
        line = lines.setdefault((row["from"], row["to"]), {"from": row["from"], "to": row["to"]})
        p = "" if row["p"] is None else f" (p {row['p']:.2g})"
        line[row["of"]] = f"{row['difference']:+.3g}{p}"
    columns = list(dict.fromkeys(key for line in lines.values() for key in line))
    return [{key: line.get(key) for key in columns} for line in lines.values()]


def successes(results: Results, groups: dict[Run, list[Run]]) -> list[dict[str, Any]]:
    """Intended transition states of pairs of conditions: McNemar for every seed, and a test over reactions."""
    fields, rows = varying(groups), []
    for first, second, pairs in comparisons(results, groups):
        gained = lost = 0
        each, sums = [], [dict[str, list[float]](), dict[str, list[float]]()]
        for pair in pairs:
            sides = [{r["reaction"]: r["intended"] == "True" for r in results.rows("reactions", [run])} for run in pair]
            common = sorted(sides[0].keys() & sides[1].keys())
            found = mcnemar(*([side[name] for name in common] for side in sides))
            gained, lost = gained + found["only_second"], lost + found["only_first"]
            each.append("–" if found["p"] is None else f"{found['p']:.2g}")
            for side, total in zip(sides, sums, strict=True):
                for name in common:
                    total.setdefault(name, []).append(float(side[name]))
        if sums[0]:
            means = [[sum(values) / len(values) for values in total.values()] for total in sums]
            rows.append({"from": label(first, fields), "to": label(second, fields), "seeds": len(pairs)})
            rows[-1] |= {"gained": gained, "lost": lost, "p, McNemar of each seed": ", ".join(each)}
            rows[-1] |= {"p, over reactions": paired(*means)["p"]}
    return rows
