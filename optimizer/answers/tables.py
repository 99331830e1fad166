"""Rows of cells as text and as HTML, the first row the head; rows of recipes with their phases beneath."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from mixlaw.recipe import Recipe

Rows = Sequence[Sequence[str]]


def lines(rows: Rows) -> list[str]:
    """Lines of text, columns aligned to the left."""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    return ["  ".join(cell.ljust(w) for cell, w in zip(row, widths, strict=True)).rstrip() for row in rows]


def html(rows: Rows) -> str:
    """A table."""
    head = "".join(f"<th>{escape(cell)}</th>" for cell in rows[0])
    body = "".join("<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>" for row in rows[1:])
    return f"<table><tr>{head}</tr>{body}</table>"


def with_phases(rows: Rows, recipes: Sequence[Recipe]) -> list[str]:
    """Lines of text, below each row but the head the phases of its recipe."""
    head, *body = lines(rows)
    indent = " " * (max(len(row[0]) for row in rows) + 2)
    found = [head]
    for line, recipe in zip(body, recipes, strict=True):
        found += [line, *(indent + phase for phase in phases(recipe))]
    return found


def phases(recipe: Recipe) -> list[str]:
    """Every phase of a recipe in words: tokens and mixture, and of the last where the learning rate ends."""
    end = recipe.phases[-1].lr_end
    more = {recipe.phases[-1].name: f", lr to {end:g}" if end is not None else ""}
    return [f"{p.name} {p.tokens:,}: {p.mixture}{more.get(p.name, '')}" for p in recipe.phases]
