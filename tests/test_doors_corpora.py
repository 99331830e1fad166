"""Corpora as public reports found them: each is read right, or refused in one sentence that says what is wrong."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import polars as pl
import pytest

from mixlaw.errors import InputError
from mixlaw.runner.batches.manifest import Manifest, read_manifest
from mixlaw.runner.corpora.prepare import prepare
from mixlaw.runner.corpora.sources.registry import read
from mixlaw.runner.corpora.tokenizer import train
from small_study import SETTINGS, write_documents
from test_cli import mixlaw, refused, refused_here
from test_corpora_names import TOPICS, documents
from test_corpora_pulls import pull
from test_corpora_stack_exchange import answer, question

CASES = Path(__file__).resolve().parents[2] / "shared" / "cases"
TEXTS = documents(TOPICS["web"], 60)
SIZE = sum(len(text.encode()) for text in TEXTS)
LINES = "".join(json.dumps({"text": text, "url": "u"}) + "\n" for text in TEXTS).encode()
POINTER = (
    b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a214614ab2935c943f9e0ff69d22eadbb8f32\nsize 12345\n"
)


def made(root: Path, files: dict[str, bytes | str], source: str = "corpus") -> Manifest:
    """A data folder of one domain, made of these files of a corpus."""
    for name, content in files.items():
        path = root / "corpus" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content.encode() if isinstance(content, str) else content)
    return prepare(root / "data", {"web": source}, root=root, vocabulary=300, held_out=0.2)


def size(manifest: Manifest) -> int:
    """Bytes of text of the one domain, both sides."""
    return manifest.domains["web"].bytes + manifest.domains["web"].held_out_bytes


ROWS = [{"text": text, "url": "u"} for text in TEXTS]
JSON: dict[str, dict[str, bytes | str]] = {
    "lines named .json": {"c4.json": LINES},
    "lines named .JSON": {"c4.JSON": LINES},
    "lines named .JSONL": {"c4.JSONL": LINES},
    "lines named .Json.GZ": {"c4.Json.GZ": gzip.compress(LINES)},
    "an array": {"a.json": json.dumps(ROWS)},
    "an array over lines, with a byte order mark": {"a.json": "\ufeff" + json.dumps(ROWS, indent=1)},
    "objects one after another": {"a.json": "".join(json.dumps(row, indent=1) for row in ROWS)},
    "an array in .json.gz": {"a.json.gz": gzip.compress(json.dumps(ROWS).encode())},
    "a file a document": {f"{number}.json": json.dumps(row) for number, row in enumerate(ROWS)},
}


@pytest.mark.parametrize("name", JSON)
def test_json_is_read_as_rows_whatever_its_form(name: str, tmp_path: Path) -> None:
    manifest = made(tmp_path, JSON[name])
    assert size(manifest) == SIZE
    assert manifest.domains["web"].documents + manifest.domains["web"].held_out_documents == len(TEXTS)


def test_json_that_holds_no_such_rows_is_refused_with_its_fields(tmp_path: Path) -> None:
    for content, sentence in [
        ('{"dependencies": {"a": 1}, "name": "x"}', r"a.json value 1 has no field 'text', but 'dependencies', 'name'"),
        ('["one", "two"]', r"a.json value 1 holds 'one' instead of an object with a field 'text'"),
        ('[{"text": "a"}, {"text"', r"a.json is no JSON from '{\"text\"' on .*: fetch it again"),
        ('{"text": 7}', r"the field 'text' holds 7 instead of text: name another as path#field"),
    ]:
        with pytest.raises(InputError, match=sentence):
            made(tmp_path, {"a.json": content})


NULL: dict[str, list[str | None]] = {
    "null": [None],
    "null and empty": [None, "", None],
    "white space": [" \n", "\t"],
}


@pytest.mark.parametrize("form", ["a.jsonl", "a.json", "a.parquet"])
@pytest.mark.parametrize("name", NULL)
def test_rows_without_text_are_skipped_and_counted_alike_in_every_format(name: str, form: str, tmp_path: Path) -> None:
    texts = [*TEXTS[:5], *NULL[name], *TEXTS[5:]]
    rows = [{"text": text} for text in texts]
    (tmp_path / "corpus").mkdir()
    if form == "a.parquet":
        pl.DataFrame(rows).write_parquet(tmp_path / "corpus" / form)
        manifest = made(tmp_path, {})
    else:
        manifest = made(tmp_path, {form: "".join(json.dumps(row) + "\n" for row in rows)})
    assert size(manifest) == SIZE
    assert manifest.domains["web"].blank == len(NULL[name])
    assert f"web: empty or null texts skipped: {len(NULL[name])}" in manifest.notes


ENCODED = {
    "Latin-1": ("é".encode("latin-1"), r"web.jsonl line 61 is not UTF-8 text \(.* 0xe9 at byte 10\): convert it"),
    "cut": (b"", r"web.jsonl line 61 is not JSON \(Unterminated string .*, and the file ends there\): fetch the file"),
}


@pytest.mark.parametrize("name", ENCODED)
def test_a_bad_line_is_refused_with_its_reason(name: str, tmp_path: Path) -> None:
    content, sentence = ENCODED[name]
    with pytest.raises(InputError, match=sentence):
        made(tmp_path, {"web.jsonl": LINES + b'{"text": "' + content + (b'"}\n' if content else b"abc")})


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be", "utf-32"])
@pytest.mark.parametrize("file", ["web.jsonl", "web.json", "a.txt"])
def test_other_encodings_of_unicode_are_refused_by_name(encoding: str, file: str, tmp_path: Path) -> None:
    named = "UTF-32" if encoding == "utf-32" else "UTF-16"
    with pytest.raises(
        InputError, match=rf"{file}( line 1)? is {named}, not UTF-8 text: convert it \(iconv -f {named}"
    ):
        made(tmp_path, {file: LINES.decode().encode(encoding)})


def test_other_compressions_are_refused_by_name(tmp_path: Path) -> None:
    import bz2
    import lzma

    for name, content, sentence in [
        ("web.jsonl.xz", lzma.compress(LINES), "compressed by xz, not UTF-8 text: recompress it as .gz or .zst"),
        ("web.jsonl.bz2", bz2.compress(LINES), "compressed by bzip2, not UTF-8 text: recompress"),
        ("web.jsonl", gzip.compress(LINES), "compressed by gzip, not UTF-8 text: let its name end in .gz"),
        ("web.txt", b"PAR1\xff\xfe\x00", "Parquet, not UTF-8 text: let its name end in .parquet"),
    ]:
        with pytest.raises(InputError, match=sentence):
            made(tmp_path / name, {name: content})


BESIDE = {
    "README.md": (b"# About", "left out corpus/README.md"),
    "readme.txt": (b"# About", "left out corpus/readme.txt"),
    "README.zh-CN.md": (b"# About", "left out corpus/README.zh-CN.md"),
    ".gitattributes": (b"*.zip filter=lfs", r"left out corpus/.gitattributes (hidden)"),
    ".cache/huggingface/x.json": (b"{}", "left out corpus/.cache/huggingface/x.json (hidden)"),
    "train-2.jsonl": (POINTER, "left out corpus/train-2.jsonl (Git LFS pointers: run `git lfs pull` there)"),
    "train.parquet": (POINTER, "left out corpus/train.parquet (Git LFS pointers"),
    "dataset_infos.json": (b'{"default": {}}', "left out corpus/dataset_infos.json"),
    "_SUCCESS": (b"", "left out corpus/_SUCCESS"),
    "LICENSE": (b"Apache", "left out corpus/LICENSE"),
}


@pytest.mark.parametrize("name", BESIDE)
def test_what_is_no_document_in_a_cloned_data_set_is_left_out_and_said(name: str, tmp_path: Path) -> None:
    content, note = BESIDE[name]
    manifest = made(tmp_path, {"train.jsonl": LINES, name: content})
    assert size(manifest) == SIZE
    assert any(said.startswith(f"web: {note}") for said in manifest.notes)


def test_what_is_asked_for_by_name_or_ending_is_read(tmp_path: Path) -> None:
    files = {"README.md": "about", "b.md": "more", "c.txt": "text", "readme.jsonl": '{"text": "a corpus of them"}\n'}
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    assert [d.text for d in read("README.md", tmp_path)] == ["about"]
    assert [d.text for d in read("*.md", tmp_path)] == ["about", "more"]
    assert [d.text for d in read("*", tmp_path)] == ["more", "text", "a corpus of them"]


def test_a_folder_of_nothing_else_is_refused_with_what_is_there(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no file matches the source 'corpus' .*; left out corpus/README.md: name"):
        made(tmp_path / "a", {"README.md": "about"})
    with pytest.raises(InputError, match=r"is empty; left out corpus/a.parquet .*git lfs pull.*must give documents"):
        made(tmp_path / "b", {"a.parquet": POINTER})


BRACKETS = ["part[01].parquet", "part*.parquet", "part?.parquet", "part{0,1}.parquet", "part[!0].PARQUET"]


@pytest.mark.parametrize("name", BRACKETS)
def test_a_file_whose_name_looks_like_a_pattern_is_read_itself(name: str, tmp_path: Path) -> None:
    (tmp_path / "corpus").mkdir()
    for number, file in enumerate([name, "part0.parquet", "part1.parquet"]):
        pl.DataFrame({"text": TEXTS[number::3]}).write_parquet(tmp_path / "corpus" / file)
    manifest = made(tmp_path, {})
    assert (size(manifest), manifest.domains["web"].duplicates) == (SIZE, 0)
    assert [d.text for d in read(f"corpus/{name}", tmp_path)] == TEXTS[::3]


FORBIDDEN = {
    "a reference": "&#x0E;",
    "a decimal one, and a surrogate": "&#14;&#xD800;&#55357;",
    "the character itself": "\x0e\x00\x1b",
    "no character at all": "&#xFFFE;&#xFFFFFF;",
}


@pytest.mark.parametrize("name", FORBIDDEN)
@pytest.mark.parametrize("before", [0, 16_360, 16_375, 16_382])  # so that a block of the parser ends in it
def test_characters_that_xml_forbids_are_dropped_from_a_dump(name: str, before: int, tmp_path: Path) -> None:
    rows = [question(1, "Why?", "<p>It is so.</p>"), answer(2, 1, "<p>Since &#x41;&#233; is it.</p>", score=1)]
    body = "".join(
        "<row "
        + " ".join(f'{k}="{str(v).replace("<", "&lt;").replace(">", "&gt;")}"' for k, v in row.items())
        + " />\n"
        for row in rows
    )
    filler = f"<!--{'x' * max(0, before - 70)}-->\n"
    body = body.replace("so.", f"{FORBIDDEN[name]}so.")
    text = f'<?xml version="1.0" encoding="utf-8"?>\n<posts>\n{filler}{body}</posts>'
    (tmp_path / "posts.XML").write_text(text, encoding="utf-8")
    found = [d.text for d in read("stackexchange:.", tmp_path)]
    assert found == ["# Why?\n\nIt is so.\n\n## Answer\n\nSince Aé is it.\n"]


@pytest.mark.parametrize(
    ("encoding", "sentence"),
    [
        ("utf-16", "pulls.json is UTF-16, not UTF-8 text: convert it"),
        ("utf-16-le", "pulls.json is UTF-16, not UTF-8 text: convert it"),
        ("latin-1", r"pulls.json is not UTF-8 text \(.* 0xe9 at byte \d+\): convert it"),
        ("utf-8-sig", ""),
        ("utf-8", ""),
    ],
)
def test_pull_requests_are_read_as_utf_8_and_refused_as_anything_else(
    encoding: str, sentence: str, tmp_path: Path
) -> None:
    rows = json.dumps([pull(number, f"Café {number}") for number in range(1, 4)], ensure_ascii=False)
    (tmp_path / "ex").mkdir()
    (tmp_path / "ex" / "pulls.json").write_bytes(rows.encode(encoding))
    if sentence:
        with pytest.raises(InputError, match=sentence):
            list(read("pulls:ex", tmp_path))
    else:
        assert [d.text for d in read("pulls:ex", tmp_path)] == [f"# Café {n}\n\nText.\n" for n in range(1, 4)]


BEGINNINGS = {
    "a template": ("<s> $A", {"bos_token": "<s>", "eos_token": "</s>"}, "<s>"),
    "a template of both ends": ("[CLS] $A [SEP]", {"sep_token": "[SEP]"}, "[CLS]"),
    "the configuration alone": (
        "",
        {"bos_token": {"content": "<s>"}, "eos_token": "</s>", "add_bos_token": True},
        "<s>",
    ),
    "neither": ("", {"bos_token": "<s>", "eos_token": "</s>", "add_bos_token": False}, ""),
    "an end alone": ("$A </s>", {"bos_token": "<s>", "eos_token": "</s>"}, ""),
}


@pytest.mark.parametrize("name", BEGINNINGS)
def test_a_beginning_that_the_model_knows_and_documents_lack_is_said(name: str, tmp_path: Path) -> None:
    from tokenizers import processors

    template, configuration, begin = BEGINNINGS[name]
    special = ["<s>", "</s>", "[CLS]", "[SEP]"]
    tokenizer = train(TEXTS, 300)
    tokenizer.add_special_tokens(special)
    if template:
        ids = [(token, tokenizer.token_to_id(token)) for token in special]
        tokenizer.post_processor = processors.TemplateProcessing(template, special_tokens=ids)
    (tmp_path / "tok").mkdir()
    tokenizer.save(str(tmp_path / "tok" / "tokenizer.json"))
    (tmp_path / "tok" / "tokenizer_config.json").write_text(json.dumps(configuration), encoding="utf-8-sig")
    (tmp_path / "a.jsonl").write_bytes(LINES)
    manifest = prepare(tmp_path / "data", {"web": "a.jsonl"}, root=tmp_path, tokenizer=tmp_path / "tok", held_out=0.2)
    assert manifest.begin == begin
    said = f"has {begin} before a text; documents here end with a token and begin without one" in " ".join(
        manifest.notes
    )
    assert said is bool(begin)
    assert read_manifest(tmp_path / "data") == manifest


@pytest.mark.slow
@pytest.mark.parametrize(
    ("domains", "refused_by"), [(["tiny"], "plan"), (["code", "tiny", "text"], "run"), (["text"], "")]
)
def test_a_domain_shorter_than_a_sequence_is_refused_by_plan_before_anything_is_trained(
    domains: list[str], refused_by: str, tmp_path: Path
) -> None:
    study = tmp_path / "study"
    study.mkdir()
    mixture = ", ".join(f"{name} = {1 / len(domains)}" for name in domains)
    recipe = f'[mixtures]\nm = {{ {mixture} }}\n[[recipes]]\nsize = "0.025M"\nphases = {{ init = "m" }}\n'
    head = SETTINGS.partition("[[phases]]")[0] + '[domains.tiny]\nsource = "tiny.jsonl"\n'
    (study / "study.toml").write_text(f'{head}[[phases]]\nname = "init"\nshare = 1.0\n{recipe}')
    write_documents(study)
    (study / "tiny.jsonl").write_text("".join(f'{{"text": "{letter}"}}\n' for letter in "0123456789"))
    mixlaw("prepare", study)
    tokens = read_manifest(study / "data").domains["tiny"].unique_tokens
    sentence = (
        f"domain 'tiny' has {tokens - 1} tokens, fewer than one sequence of 32; add documents or leave the domain"
    )
    if not refused_by:
        assert "1 of 1 segments" in mixlaw("plan", study).stdout
        return
    for command in (["plan"], ["run", "--workers", "1"], ["run", "--dry-run", "--gpu", "H100"]):
        assert sentence in refused_here(study, command[0], study, *command[1:])
    assert sentence in refused(study, refused_by, study)


@pytest.mark.skipif(not CASES.exists(), reason="the handed cases are not beside this checkout")
@pytest.mark.parametrize(
    ("case", "expected"),
    [
        ("01-dotted-domain", {"c4.en": 17_207, "c4.de": 7_614}),
        ("01b-one-dotted-domain", {"dm.math": 10_614}),
        ("12-json-lines-named-json", {"web": 10_614}),
        ("13-stackexchange-control-character", {"qa": 3_343}),
        ("15-pulls-utf16", "pulls.json is UTF-16"),
        ("29-null-text", {"web": 4_735}),
        ("30-misleading-line-errors/latin1", "line 41 is not UTF-8 text"),
        ("30-misleading-line-errors/cut", "line 41 is not JSON"),
        ("30-misleading-line-errors/utf16", "line 1 is UTF-16"),
        ("30-misleading-line-errors/xz", "compressed by xz"),
        ("31-folder-with-more-than-documents", "left out repo/README.md"),
        ("37-brackets-in-a-path/corpus", {"web": 23_752}),
    ],
)
def test_handed_cases(case: str, expected: dict[str, int] | str, tmp_path: Path) -> None:
    import shutil

    study = tmp_path / "study"
    shutil.copytree(CASES / case, study, copy_function=shutil.copyfile)
    if isinstance(expected, str):
        said = refused(study, "prepare", study)
        assert expected in said
        return
    found = json.loads(mixlaw("prepare", study, "--json").stdout)["domains"]
    assert {name: found[name]["unique_tokens"] for name in expected} == expected
