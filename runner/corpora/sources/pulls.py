"""Pull requests from saved answers of GitHub's REST API: title, discussion, diff; nothing is fetched.

A folder holds the export of one repository. The objects of its JSON files (arrays, an object a line, or pages one after
another) are pull requests, comments on them as issues, review comments, reviews, or changed files, in any file. The
diff of pull request 12 is `12.diff`, or the answer about its changed files in `12.json` or `12/files.json`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from mixlaw.errors import InputError
from mixlaw.runner.corpora.sources.address import Address, Scheme, below, stats
from mixlaw.runner.corpora.sources.compressed import opened
from mixlaw.runner.corpora.sources.diffs import cleaned, is_wanted
from mixlaw.runner.corpora.sources.document import Document
from mixlaw.runner.corpora.sources.encodings import values
from mixlaw.runner.corpora.sources.groups import Groups, Order
from mixlaw.runner.corpora.sources.part import Part, name_of

PULL, COMMENT, DIFF, PATCH = range(4)  # kinds of rows, in the order in which a group is read
LARGEST = 2**24  # bytes of a .diff file that is looked at
_PULL = re.compile(r"/repos/([^/]+/[^/]+)/pulls/(\d+)$")
_ISSUE = re.compile(r"/repos/([^/]+/[^/]+)/issues/(\d+)$")

Row = tuple[int, Order, Any]  # number of the pull request, order, content


def _read(folder: Path, where: str, limit: int) -> Iterator[Document]:
    repositories: set[str] = set()
    with Groups() as groups:
        for file in _files(folder):
            for row in _rows(file, repositories):
                groups.add(*row)
            if len(repositories) > 1:
                raise InputError(
                    f"{folder} holds pull requests of {' and '.join(sorted(repositories))}: give each repository a "
                    "folder of its own, and name pulls:FOLDER/*"
                )
        for number, rows in groups:
            text = _written(rows, limit)
            if text:
                yield Document(text, f"{where}#{number}")


def _rows(file: Path, repositories: set[str]) -> Iterator[Row]:
    number = _number(file)
    if file.suffix.lower() in (".diff", ".patch"):
        if number is not None and file.stat().st_size <= LARGEST:
            yield number, (DIFF, 0, 0), {"whole": file.read_text(encoding="utf-8", errors="replace")}
        return
    with opened(file) as stream:
        for place, value in enumerate(values(stream, str(file), "export it again")):
            if isinstance(value, dict) and (row := _row(value, number, place, repositories)) is not None:
                yield row


def _number(file: Path) -> int | None:
    """Number of the pull request that a file is about, by its name or its folder's."""
    number = re.search(r"\d+", file.name) or re.fullmatch(r"\d+", file.parent.name)
    return int(number[0]) if number else None


def _row(value: Mapping[str, Any], number: int | None, place: int, repositories: set[str]) -> Row | None:
    """The row of an object, None if it is a bot's or of no kind that is read."""
    by_bot = (value.get("user") or {}).get("type") == "Bot"
    if pull := _PULL.search(str(value.get("url", ""))):
        repositories.add(pull[1])
        if by_bot:
            return None
        return int(pull[2]), (PULL, 0, 0), {"title": value.get("title") or "", "text": value.get("body") or ""}
    about = _PULL.search(str(value.get("pull_request_url", ""))) or _ISSUE.search(str(value.get("issue_url", "")))
    if about:
        repositories.add(about[1])
        comment = None if by_bot else _comment_of(value)
        return None if comment is None else (int(about[2]), (COMMENT, _time(value), int(value.get("id", 0))), comment)
    if number is not None and "filename" in value and is_wanted(str(value["filename"])):
        name = value["filename"]
        patch = value.get("patch") or ""  # binary files have none
        before = value.get("previous_filename", name)
        head = f"diff --git a/{before} b/{name}\n--- a/{before}\n+++ b/{name}\n"
        return number, (PATCH, place, 0), {"diff": f"{head}{patch}\n" if patch else ""}
    return None


def _comment_of(value: Mapping[str, Any]) -> dict[str, str] | None:
    """A comment with the hunk that it is about, unless it answers another comment there."""
    if not (value.get("body") or "").strip():
        return None
    first = value.get("in_reply_to_id") is None
    hunk = value.get("diff_hunk") if first else None
    return {"text": value["body"], "hunk": hunk or "", "path": value.get("path") or ""}


def _time(value: Mapping[str, Any]) -> int:
    return int("".join(re.findall(r"\d", str(value.get("created_at") or value.get("submitted_at") or ""))[:14]) or 0)


def _written(rows: list[Any], limit: int) -> str:
    """Title, text, discussion and diff; empty where there is no pull request, or its diff is over the limit."""
    if "title" not in rows[0]:
        return ""
    whole = [row["whole"] for row in rows if "whole" in row]
    diff = cleaned(whole[0] if whole else "".join(row["diff"] for row in rows if "diff" in row))
    if len(diff.encode("utf-8", "replace")) > limit:
        return ""
    blocks = [f"# {rows[0]['title']}", _plain(rows[0]["text"])]
    blocks += [_comment(row) for row in rows if "hunk" in row]
    blocks += [f"## Diff\n\n```diff\n{diff.rstrip()}\n```"] if diff.strip() else []
    return "\n\n".join(filter(None, blocks)) + "\n"


def _comment(row: Mapping[str, str]) -> str:
    hunk = f"{row['path']}\n\n```diff\n{row['hunk']}\n```\n\n" if row["hunk"] else ""
    return f"## Comment\n\n{hunk}{_plain(row['text'])}"


def _plain(text: str) -> str:
    """Line ends as in Unix, and no comments of HTML, which templates of pull requests are full of."""
    return re.sub(r"<!--.*?-->", "", text.replace("\r\n", "\n"), flags=re.DOTALL).strip()


def _files(folder: Path) -> list[Path]:
    kinds = (".json", ".jsonl", ".ndjson", ".diff", ".patch")
    return [file for file in below([folder]) if any(suffix.lower() in kinds for suffix in file.suffixes[-2:])]


def _parts(address: Address) -> list[Part]:
    folders = [path for path in address.paths() if _files(path)]
    if not folders:
        raise InputError(f"{address.source!r} holds no .json file: export the answers of GitHub's API into a folder")
    return [
        Part(where, partial(_read, folder, where, address.number("max_bytes")), _size(folder))
        for folder in folders
        for where in (name_of(folder, address.root),)
    ]


def _size(folder: Path) -> int:
    return sum(file.stat().st_size for file in _files(folder))


def _identity(address: Address) -> object:
    return {"files": stats([file for folder in address.paths() for file in _files(folder)])}


PULL_REQUESTS = Scheme(_parts, _identity, {"max_bytes": 65_536})
