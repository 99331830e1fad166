"""Models of JSON documents; that commands print what they say is checked where tests read one: `test_cli.document`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import typer.main
from pydantic import ValidationError

from mixlaw import documents
from mixlaw.cli import app
from mixlaw.document_parts import PARTS, Document
from mixlaw.documents import Fit


def test_every_document_and_every_command_is_described() -> None:
    group: Any = typer.main.get_command(app)
    models = [one for one in vars(documents).values() if isinstance(one, type) and issubclass(one, Document)]
    assert {*models} - {Document} == {*documents.DOCUMENTS}
    others = {"dashboard", "data"}
    assert {*documents.COMMANDS} == {*group.commands} - others
    assert Fit.model_json_schema()["properties"]["unchanged"]["description"].startswith("Whether nothing was fitted")


def test_every_part_of_a_document_has_a_type_and_a_row_in_the_page() -> None:
    schemas = {one.__name__: one.model_json_schema() for one in documents.DOCUMENTS}
    parts = {name for schema in schemas.values() for name in schema.get("$defs", {})}
    assert parts - {*schemas} == {part.__name__ for part in PARTS}
    assert list(untyped(schemas, "")) == ["/Run/properties/details"]  # what a trainer writes there is its own


def untyped(schema: Any, place: str) -> Iterator[str]:
    """Places of a JSON schema that hold an object of any shape."""
    if isinstance(schema, dict):
        if (
            schema.get("type") == "object"
            and schema.get("additionalProperties") in (None, True, {})
            and ("properties" not in schema)
        ):
            yield place
        for name, part in schema.items():
            yield from untyped(part, f"{place}/{name}")
    elif isinstance(schema, list):
        for number, part in enumerate(schema):
            yield from untyped(part, f"{place}/{number}")


def test_a_field_that_the_model_lacks_is_noticed() -> None:
    with pytest.raises(ValidationError, match="extra"):
        documents.Status.model_validate(
            {"format": 1, "study": "s", "next": "fit()", "runs": [], "proposals": [], "more": 1}
        )
