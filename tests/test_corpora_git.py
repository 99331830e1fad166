"""Git repositories as message and diff: known commits of a repository that git makes on the spot."""

from __future__ import annotations

import pickle
import shutil
import subprocess
from pathlib import Path

import pytest

from mixlaw.errors import InputError
from mixlaw.runner.corpora.sources import git as repositories
from mixlaw.runner.corpora.sources.registry import identity, partitions, read

pytestmark = pytest.mark.skipif(shutil.which("git") is None, reason="needs git")
NAME = ("-c", "user.name=N", "-c", "user.email=n@example.org", "-c", "commit.gpgsign=false")


def git(repository: Path, *arguments: str, input: bytes | None = None) -> str:
    command = ["git", *NAME, "-C", str(repository), *arguments]
    return subprocess.run(command, check=True, capture_output=True, input=input).stdout.decode().strip()


def commit(repository: Path, message: str, **files: bytes | str | None) -> str:
    for name, content in files.items():
        path = repository / name.replace("__", "/").replace("_dot_", ".")
        path.parent.mkdir(parents=True, exist_ok=True)
        if content is None:
            path.unlink()
        else:
            path.write_bytes(content if isinstance(content, bytes) else content.encode())
    git(repository, "add", "-A")
    git(repository, "commit", "-q", "-F", "-", input=message.encode())
    return git(repository, "rev-parse", "HEAD")


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A repository with plain, merged, binary, generated, oversized, renaming and foreign-encoded commits."""
    root = tmp_path_factory.mktemp("repositories")
    repository = root / "project"
    repository.mkdir()
    git(repository, "init", "-q", "-b", "main")
    commit(repository, "Add f\n\nBecause.\n", src__f_dot_py="def f():\n    return 1\n")
    commit(repository, "Add a picture and g", picture_dot_png=b"\x89PNG\0\0", src__g_dot_py="g = 2\n")
    git(repository, "checkout", "-q", "-b", "side")
    commit(repository, "Return 2", src__f_dot_py="def f():\n    return 2\n")
    git(repository, "checkout", "-q", "main")
    commit(repository, "Only a binary", other_dot_bin=b"\0\1\2")
    git(repository, "merge", "-q", "--no-ff", "-m", "Merge side", "side")
    commit(repository, "Lock", poetry_dot_lock="a = 1\n" * 10)
    commit(repository, "Too much", src__big_dot_py="x = 1\n" * 20_000)
    git(repository, "mv", "src/g.py", "src/h.py")
    commit(repository, "Rename g to h", docs__a_dot_md="Text é.\n")
    commit(repository, "Latin", latin_dot_txt="naïve\n".encode("latin-1"))
    commit(
        repository, "diff --git in\n\ndiff --git a/x b/x\nthe message", src__f_dot_py="f = 3  # diff --git a/y b/y\n"
    )
    return root


def texts(root: Path, source: str = "git:project") -> dict[str, str]:
    """Diff by subject, oldest first."""
    found = [document.text for document in read(source, root)]
    return {text.partition("\n")[0]: text for text in reversed(found)}


def test_a_commit_is_its_message_and_its_diff_as_git_shows_them(root: Path) -> None:
    found = texts(root)
    head = git(root / "project", "rev-list", "--max-parents=0", "HEAD")
    patch = git(root / "project", "show", "--format=", "--patch", head)
    assert found["Add f"] == f"Add f\n\nBecause.\n\n{patch}\n"
    assert "-    return 1\n+    return 2\n" in found["Return 2"]
    origins = {document.text.partition("\n")[0]: document.origin for document in read("git:project", root)}
    assert origins["Add f"] == f"project {head}"


def test_merges_binaries_generated_foreign_and_oversized_diffs_are_left_out(root: Path) -> None:
    found = texts(root)
    assert list(found) == ["Add f", "Add a picture and g", "Return 2", "Rename g to h", "diff --git in"]
    assert "picture" not in found["Add a picture and g"].partition("\n\n")[2]
    assert "+g = 2" in found["Add a picture and g"]
    assert "rename from src/g.py\nrename to src/h.py\n" in found["Rename g to h"]
    assert "+Text é.\n" in found["Rename g to h"]
    assert found["diff --git in"].startswith(
        "diff --git in\n\ndiff --git a/x b/x\nthe message\n\ndiff --git a/src/f.py"
    )
    assert found["diff --git in"].endswith("+f = 3  # diff --git a/y b/y\n")


def test_options_filter_by_path_and_move_the_limit(root: Path) -> None:
    assert list(texts(root, "git:project?paths=docs,src/g.py")) == ["Add a picture and g", "Rename g to h"]
    assert "Too much" in texts(root, "git:project?max_bytes=1000000")
    assert list(texts(root, "git:project?max_bytes=60")) == []


def test_slices_of_commits_are_parts_that_together_give_all(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = list(read("git:project", root))
    monkeypatch.setattr(repositories, "SLICE", 3)
    parts = pickle.loads(pickle.dumps(partitions("git:project", root)))
    assert [part.name for part in parts] == [f"project@{begin}" for begin in (0, 3, 6)]
    assert [document for part in parts for document in part.read()] == whole


def test_a_bare_clone_gives_the_same_and_a_glob_gives_all(root: Path, tmp_path: Path) -> None:
    git(root, "clone", "-q", "--bare", "project", str(tmp_path / "bare.git"))
    bare = [document.text for document in read("git:bare.git", tmp_path)]
    assert bare == [document.text for document in read("git:project", root)]
    git(tmp_path, "clone", "-q", "bare.git", "second")
    assert len(list(read("git:*", tmp_path))) == 2 * len(bare)


def test_identity_is_the_commit_at_the_head(root: Path, tmp_path: Path) -> None:
    git(tmp_path, "clone", "-q", str(root / "project"), "copy")
    before = identity("git:copy", tmp_path)
    assert before["state"] == {"heads": {"copy": git(root / "project", "rev-parse", "HEAD")}}
    (tmp_path / "copy" / "new.txt").write_text("not committed")
    assert identity("git:copy", tmp_path) == before
    commit(tmp_path / "copy", "New")
    assert identity("git:copy", tmp_path) != before


def test_nothing_that_a_repository_or_a_user_configures_changes_what_is_read(root: Path, tmp_path: Path) -> None:
    git(tmp_path, "clone", "-q", str(root / "project"), "copy")
    copy, ran = tmp_path / "copy", tmp_path / "ran"
    for key, value in (
        ("diff.external", f"touch {ran}"),
        ("diff.py.textconv", f"touch {ran}; cat"),
        ("diff.noprefix", "true"),
        ("diff.context", "0"),
        ("color.ui", "always"),
        ("diff.algorithm", "patience"),
    ):
        git(copy, "config", key, value)
    (copy / ".git" / "info" / "attributes").write_text("*.py diff=py\n")
    assert [document.text for document in read("git:copy", tmp_path)] == list(reversed(texts(root).values()))
    assert not ran.exists()


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("git:plain", "plain .* is no git repository: name one, or a glob"),
        ("git:empty", "git cannot read .*empty: fatal: Needed a single revision"),
        ("git:missing", "no file matches the source 'missing'"),
        ("git:empty?branch=main", "unknown option 'branch': git:empty knows paths, max_bytes"),
        ("git:empty?max_bytes=1e5", "sets max_bytes to '1e5': it must be a whole number"),
    ],
)
def test_a_wrong_repository_says_what_is_wrong(source: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "plain").mkdir()
    (tmp_path / "empty").mkdir()
    git(tmp_path / "empty", "init", "-q")
    with pytest.raises(InputError, match=message):
        partitions(source, tmp_path)
