"""Every way to install mixlaw has every module, also where links are not kept: zip downloads, Windows' checkouts.

What is built is the last commit, by setuptools as it is installed here; nothing is downloaded.
"""

from __future__ import annotations

import io
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PIP = (sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet")
HERE = ("--no-build-isolation", "--no-deps", "--no-index")
TOP = ("runner", "analysis", "optimizer")
FILES = {"mixlaw/py.typed", "mixlaw/templates/new.toml", "mixlaw/dashboard/assets/style.css"}

pytestmark = pytest.mark.slow
pytest.importorskip("setuptools", minversion="77", reason="needs setuptools 77, which builds mixlaw")


def done(*command: str | Path, cwd: Path = ROOT) -> str:
    """What a command prints; its errors where it fails."""
    run = subprocess.run(command, cwd=cwd, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr[-2000:]
    return run.stdout


def installed(names: list[str]) -> set[str]:
    """Modules and data among the files of an archive."""
    return {name for name in names if name.startswith("mixlaw/") and (name.endswith(".py") or name in FILES)}


@pytest.fixture(scope="module")
def download() -> bytes:
    """What "Download ZIP" gives: links are small text files there, to pip and to many unpackers."""
    if not (ROOT / ".git").exists() or shutil.which("git") is None:
        pytest.skip("needs git, and a checkout")
    return subprocess.run(["git", "archive", "--format=zip", "HEAD"], cwd=ROOT, capture_output=True, check=True).stdout


@pytest.fixture(scope="module")
def modules(download: bytes) -> set[str]:
    """Every module of the commit under its place in an installation, and the data beside them."""
    names = [name.removeprefix("src/") for name in zipfile.ZipFile(io.BytesIO(download)).namelist()]
    return installed([f"mixlaw/{name}" if name.split("/")[0] in TOP else name for name in names])


@pytest.fixture(scope="module")
def checkout(download: bytes, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkout with core.symlinks=false."""
    folder = tmp_path_factory.mktemp("checkout")
    zipfile.ZipFile(io.BytesIO(download)).extractall(folder)
    assert (folder / "src" / "mixlaw" / "runner").is_file()
    return folder


def test_a_zip_download_installs(download: bytes, modules: set[str], tmp_path: Path) -> None:
    (tmp_path / "mixlaw-main.zip").write_bytes(download)
    done(*PIP, "install", *HERE, "--no-compile", "--target", tmp_path / "site", tmp_path / "mixlaw-main.zip")
    files = [str(path.relative_to(tmp_path / "site")) for path in (tmp_path / "site").rglob("*") if path.is_file()]
    assert installed(files) == modules
    assert modules >= FILES


def test_a_checkout_without_links_gives_a_whole_wheel(checkout: Path, modules: set[str], tmp_path: Path) -> None:
    done(*PIP, "wheel", *HERE, "-w", tmp_path, checkout)
    (wheel,) = tmp_path.glob("*.whl")
    assert installed(zipfile.ZipFile(wheel).namelist()) == modules


def test_a_wheel_can_be_built_from_the_sdist(checkout: Path, modules: set[str], tmp_path: Path) -> None:
    build = "import sys; from setuptools.build_meta import build_sdist; build_sdist(sys.argv[1])"
    done(sys.executable, "-c", build, tmp_path, cwd=checkout)
    (sdist,) = tmp_path.glob("*.tar.gz")
    with tarfile.open(sdist) as archive:
        names = [name.split("/", 1)[1] for name in archive.getnames() if "/" in name]
    assert {"Makefile", "constraints.txt", *(f"{folder}/__init__.py" for folder in TOP)} < set(names)
    done(*PIP, "wheel", *HERE, "-w", tmp_path, sdist)
    (wheel,) = tmp_path.glob("*.whl")
    assert installed(zipfile.ZipFile(wheel).namelist()) == modules


@pytest.mark.parametrize("links", [False, True])
def test_an_editable_installation_reads_the_folders_at_the_top(checkout: Path, tmp_path: Path, links: bool) -> None:
    folder = tmp_path / "checkout"
    if links:
        done("git", "clone", "--quiet", "--shared", ROOT, folder)
    else:
        done("cp", "-r", checkout, folder)
    done(*PIP, "install", *HERE, "--prefix", tmp_path / "prefix", "--ignore-installed", "--editable", folder)
    (folder / "runner" / "plan" / "added.py").write_text("")  # a new module is there at once
    site = sysconfig.get_path("purelib", vars={"base": str(tmp_path / "prefix")})
    modules = {
        "mixlaw.cli": "src/mixlaw/cli.py",
        "mixlaw.runner.plan.added": "runner/plan/added.py",
        "mixlaw.analysis": "analysis/__init__.py",
        "mixlaw.optimizer": "optimizer/__init__.py",
    }
    code = f"import site; site.addsitedir({site!r}); from importlib.util import find_spec\n"
    code += f"for name in {list(modules)}: print(find_spec(name).origin)"
    lines = done(sys.executable, "-S", "-E", "-c", code, cwd=tmp_path).splitlines()  # no site: no other mixlaw is seen
    assert [Path(line).resolve() for line in lines] == [folder / path for path in modules.values()]
