"""Run every benchmark in turn: `make bench`, or `python -m benchmarks NAME ...` for some."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent
APART = {"__main__", "scoreboard"}  # the scoreboard has a target of its own


def main(names: list[str]) -> int:
    """Run the named benchmarks, or all; return the worst exit code."""
    runs = [path for path in HERE.glob("*.py") if '__name__ == "__main__"' in path.read_text(encoding="utf-8")]
    known = sorted(path.stem for path in runs if path.stem not in APART)
    unknown = [name for name in names if name not in known]
    if unknown:
        print(f"no benchmark {unknown[0]!r}; there are {', '.join(known)}", file=sys.stderr)
        return 2
    worst = 0
    for name in names or known:
        print(f"\n== {name}", flush=True)
        worst = max(worst, subprocess.run([sys.executable, str(HERE / f"{name}.py")], check=False).returncode)
    return worst


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
