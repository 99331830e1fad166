"""A dump of Stack Exchange in the documented format: rows of posts, answers far from their questions."""

from __future__ import annotations

import random
import tracemalloc
from pathlib import Path
from xml.sax.saxutils import quoteattr

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mixlaw.errors import InputError
from mixlaw.runner.corpora.sources.html_text import plain_text
from mixlaw.runner.corpora.sources.registry import identity, partitions, read

Post = dict[str, object]


def question(id: int, title: str, body: str, **more: object) -> Post:
    return {"Id": id, "PostTypeId": 1, "Score": 3, "Body": body, "Title": title, "Tags": "<python>", **more}


def answer(id: int, parent: int, body: str, score: int = 0) -> Post:
    return {"Id": id, "PostTypeId": 2, "ParentId": parent, "Score": score, "Body": body}


def dump(path: Path, posts: list[Post]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding="utf-8") as file:
        file.write('\ufeff<?xml version="1.0" encoding="utf-8"?>\n<posts>\n')
        for post in posts:
            told = " ".join(f"{name}={quoteattr(str(value))}" for name, value in post.items())
            file.write(f"  <row {told} />\n")
        file.write("</posts>\n")
    return path


POSTS = [
    question(4, "How?", "<p>I have <code>x &lt; 1</code>.</p>\n<pre><code>x = 0\n</code></pre>\n", AcceptedAnswerId=7),
    question(5, "Nobody knows", "<p>?</p>"),
    {"Id": 6, "PostTypeId": 5, "Score": 0, "Body": "<p>a wiki of a tag</p>"},
    answer(7, 4, "<p>So.</p>", score=2),
    question(8, "What?", "<p>Text</p>"),
    answer(9, 4, "<p>Better:</p><ul><li>one</li><li>two</li></ul>", score=5),
    answer(10, 8, "<p>That.</p>", score=-1),
    answer(11, 4, "<p>Later.</p>", score=2),
    answer(12, 999, "<p>to a question that is gone</p>"),
]
HOW = """# How?

I have `x < 1`.

```
x = 0
```

## Answer

Better:

- one

- two

## Answer

So.

## Answer

Later.
"""


def test_a_question_stands_with_its_answers_best_first(tmp_path: Path) -> None:
    dump(tmp_path / "site" / "Posts.xml", POSTS)
    found = {document.origin: document.text for document in read("stackexchange:site", tmp_path)}
    what = "# What?\n\nText\n\n## Answer\n\nThat.\n"
    assert found == {"site/Posts.xml 4": HOW, "site/Posts.xml 8": what}


def test_a_glob_is_a_part_a_site_and_the_identity_follows_the_files(tmp_path: Path) -> None:
    for site in ("a.example.org", "b.example.org"):
        dump(tmp_path / site / "Posts.xml", POSTS)
    parts = partitions("stackexchange:*", tmp_path)
    assert [part.name for part in parts] == ["a.example.org/Posts.xml", "b.example.org/Posts.xml"]
    assert [document.text for document in parts[0].read()] == [document.text for document in parts[1].read()]
    before = identity("stackexchange:*", tmp_path)
    dump(tmp_path / "a.example.org" / "Posts.xml", POSTS[:5])
    assert identity("stackexchange:*", tmp_path) != before


def test_a_dump_cut_off_and_a_folder_without_one_are_named(tmp_path: Path) -> None:
    path = dump(tmp_path / "Posts.xml", POSTS)
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(InputError, match=r"Posts.xml is no dump of Stack Exchange, or was cut off"):
        list(read("stackexchange:Posts.xml", tmp_path))
    (tmp_path / "packed").mkdir()
    with pytest.raises(InputError, match=r"holds no Posts.xml: unpack the dump"):
        partitions("stackexchange:packed", tmp_path)


def test_memory_stays_small_though_all_answers_stand_behind_all_questions(tmp_path: Path) -> None:
    count, rng = 2400, random.Random(0)
    text = "<p>" + f"{'w' * 99} " * 25 + "</p>"
    order = list(range(1, count + 1))
    rng.shuffle(order)
    posts = [question(id, f"Question {id}", text) for id in range(1, count + 1)]
    posts += [answer(count + id, id, text, score=id) for id in order]
    path = dump(tmp_path / "Posts.xml", posts)
    del posts
    tracemalloc.start()
    sizes = [len(document.text) for document in read("stackexchange:Posts.xml", tmp_path)]
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert path.stat().st_size > 12_000_000
    assert len(sizes) == count
    assert min(sizes) > 5000
    assert peak < 4_000_000, peak


@pytest.mark.parametrize(
    ("html", "text"),
    [
        ("<p>a <b>b</b>\n c</p><p>d&amp;e &lt;f&gt;</p>", "a b c\n\nd&e <f>"),
        ("one<br/>two", "one\ntwo"),
        ("<ol><li>x</li><li><p>y</p><p>z</p></li></ol>", "1. x\n\n2. y\n\n   z"),
        ("<ul><li>x<ul><li>y</li></ul></li></ul>", "- x\n\n  - y"),
        ("<blockquote><p>a</p><p>b</p></blockquote><p>c</p>", "> a\n\n> b\n\nc"),
        ("<h2>T</h2><p>a</p>", "## T\n\na"),
        ("<pre class='x'><code>a\n  b &lt; c\n</code></pre>", "```\na\n  b < c\n```"),
        ('<p><a href="u">link</a><script>x()</script></p>', "link"),
        ("<table><tr><td>a</td><td>b</td></tr></table>", "a b"),
        ("<p>not closed <code>x", "not closed `x"),
    ],
)
def test_html_becomes_text_in_the_manner_of_markdown(html: str, text: str) -> None:
    assert plain_text(html) == text


@given(st.text(max_size=200))
def test_no_html_whatever_stops_the_reader(html: str) -> None:
    plain_text(html)
