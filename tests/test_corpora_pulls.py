"""Pull requests out of objects shaped as in the documentation of GitHub's REST API."""

from __future__ import annotations

import gzip
import json
import tracemalloc
from pathlib import Path
from typing import Any

import pytest

from mixlaw.errors import InputError
from mixlaw.runner.corpora.sources.registry import identity, partitions, read

API = "https://api.github.com/repos/octo/hello"
PERSON, BOT = {"login": "mona", "type": "User"}, {"login": "ci[bot]", "type": "Bot"}
HUNK = "@@ -1 +1 @@\n-one\n+two"


def pull(number: int, title: str, body: str | None = "Text.", user: dict[str, str] = PERSON) -> dict[str, Any]:
    url = f"{API}/pulls/{number}"
    return {"url": url, "number": number, "title": title, "body": body, "user": user, "comments": 2, "state": "closed"}


def comment(number: int, id: int, body: str, at: str, user: dict[str, str] = PERSON) -> dict[str, Any]:
    urls = {"url": f"{API}/issues/comments/{id}", "issue_url": f"{API}/issues/{number}"}
    return {**urls, "id": id, "body": body, "user": user, "created_at": at}


def remark(number: int, id: int, body: str, at: str, answers: int | None = None) -> dict[str, Any]:
    urls = {"url": f"{API}/pulls/comments/{id}", "pull_request_url": f"{API}/pulls/{number}"}
    place = {"path": "a.py", "diff_hunk": HUNK, **({} if answers is None else {"in_reply_to_id": answers})}
    return {**urls, **place, "id": id, "body": body, "user": PERSON, "created_at": at}


def review(number: int, id: int, body: str, at: str) -> dict[str, Any]:
    told = {"id": id, "body": body, "user": PERSON, "submitted_at": at, "state": "APPROVED"}
    return {**told, "pull_request_url": f"{API}/pulls/{number}"}


def changed(name: str, patch: str | None) -> dict[str, Any]:
    file = {"filename": name, "status": "modified", "contents_url": f"{API}/contents/{name}?ref=abc"}
    return file if patch is None else {**file, "patch": patch}


EXPECTED = """# Say two

Because.

## Comment

Why not three?

## Comment

a.py

```diff
@@ -1 +1 @@
-one
+two
```

Is this right?

## Comment

It is.

## Comment

Good.

## Diff

```diff
diff --git a/a.py b/a.py
--- a/a.py
+++ b/a.py
@@ -1 +1 @@
-one
+two
```
"""


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Pages one after another, a compressed file of lines, and diffs of three kinds."""
    folder = tmp_path / "hello"
    (folder / "12").mkdir(parents=True)
    first = [pull(12, "Say two", "<!-- Read the rules. -->\r\nBecause."), pull(13, "Empty", None)]
    second = [pull(14, "Bump", "by a bot", BOT), pull(15, "Vast"), pull(16, "Whole")]
    (folder / "pulls.json").write_text(json.dumps(first, indent=2) + json.dumps(second))
    lines = [
        comment(12, 1, "Why not three?", "2020-01-02T00:00:00Z"),
        comment(12, 2, "All checks passed", "2020-01-02T00:00:01Z", BOT),
        comment(99, 3, "About an issue that is no pull request", "2020-01-02T00:00:00Z"),
        review(12, 4, "Good.", "2020-01-05T00:00:00Z"),
        review(12, 5, "", "2020-01-06T00:00:00Z"),
    ]
    with gzip.open(folder / "issue_comments.jsonl.gz", "wt") as file:
        file.writelines(json.dumps(line) + "\n" for line in lines)
    remarks = [
        remark(12, 7, "It is.", "2020-01-04T00:00:00Z", answers=6),
        remark(12, 6, "Is this right?", "2020-01-03T00:00:00Z"),
    ]
    (folder / "review_comments.json").write_text(json.dumps(remarks))
    files = [changed("a.py", HUNK), changed("logo.png", None), changed("yarn.lock", HUNK)]
    (folder / "12" / "files.json").write_text(json.dumps(files))
    (folder / "15.diff").write_text("diff --git a/b.py b/b.py\n--- a/b.py\n+++ b/b.py\n" + "+x = 1\n" * 10_000)
    (folder / "16.diff").write_text(
        "diff --git a/c.py b/c.py\n--- a/c.py\n+++ b/c.py\n+c = 1\n"
        "diff --git a/d.png b/d.png\nBinary files a/d.png and b/d.png differ\n"
    )
    return tmp_path


def test_a_pull_request_is_title_text_discussion_in_time_and_diff(root: Path) -> None:
    found = {document.origin: document.text for document in read("pulls:hello", root)}
    assert set(found) == {"hello#12", "hello#13", "hello#16"}  # 14 is a bot's, 15 is over the limit, 99 is an issue
    assert found["hello#12"] == EXPECTED
    assert found["hello#13"] == "# Empty\n"
    diff = "diff --git a/c.py b/c.py\n--- a/c.py\n+++ b/c.py\n+c = 1"
    assert found["hello#16"] == f"# Whole\n\nText.\n\n## Diff\n\n```diff\n{diff}\n```\n"
    assert any("x = 1" in document.text for document in read("pulls:hello?max_bytes=100000", root))


def test_a_folder_is_a_repository_and_a_glob_is_several(root: Path) -> None:
    (root / "other").mkdir()
    there = json.dumps(pull(1, "There")).replace("octo/hello", "octo/other")
    (root / "other" / "pulls.json").write_text(there)
    parts = partitions("pulls:*", root)
    assert [part.name for part in parts] == ["hello", "other"]
    assert [document.origin for document in parts[1].read()] == ["other#1"]
    (root / "hello" / "more.json").write_text(there)
    with pytest.raises(InputError, match=r"requests of octo/hello and octo/other: give each repository a folder"):
        list(read("pulls:hello", root))


def test_damaged_and_missing_exports_are_named(root: Path) -> None:
    (root / "hello" / "cut.json").write_text(json.dumps([pull(1, "x")])[:-9])
    with pytest.raises(InputError, match=r"cut.json is no JSON from .* export it again"):
        list(read("pulls:hello", root))
    (root / "nothing").mkdir()
    with pytest.raises(InputError, match=r"holds no .json file: export the answers"):
        partitions("pulls:nothing", root)
    assert identity("pulls:hello", root)["state"]


def test_memory_holds_a_few_of_many_pull_requests(tmp_path: Path) -> None:
    (tmp_path / "many").mkdir()
    with (tmp_path / "many" / "pulls.json").open("w") as file:
        file.write("[")
        for number in range(4000):
            file.write("," * (number > 0) + json.dumps(pull(number, f"Title {number}", "w" * 5000)))
        file.write("]")
    tracemalloc.start()
    assert sum(1 for _ in read("pulls:many", tmp_path)) == 4000
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert (tmp_path / "many" / "pulls.json").stat().st_size > 20_000_000
    assert peak < 8_000_000
