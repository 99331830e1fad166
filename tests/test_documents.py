"""Models of JSON documents; that commands print what they say is checked where tests read one: `test_cli.document`."""

from __future__ import annotations

from typing import Any

import pytest
import typer.main
from pydantic import ValidationError

from mixlaw import documents
from mixlaw.cli import app
from mixlaw.documents import Document, Fit


def test_every_document_and_every_command_is_described() -> None:
    group: Any = typer.main.get_command(app)
    models = [one for one in vars(documents).values() if isinstance(one, type) and issubclass(one, Document)]
    assert {*models} - {Document} == {*documents.DOCUMENTS}
    others = {"dashboard", "data"}
    assert {*documents.COMMANDS} == {*group.commands} - others
    assert Fit.model_json_schema()["properties"]["unchanged"]["description"].startswith("Whether nothing was fitted")


def test_a_field_that_the_model_lacks_is_noticed() -> None:
    with pytest.raises(ValidationError, match="extra"):
        documents.Status.model_validate(
            {"format": 1, "study": "s", "next": "fit()", "runs": [], "proposals": [], "more": 1}
        )
