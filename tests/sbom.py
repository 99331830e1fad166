"""`make sbom`: the licences in a CycloneDX document, as a table, and what none is known of."""

from __future__ import annotations

import json
import sys
from collections import defaultdict
from pathlib import Path
from typing import Any


def licence_of(component: dict[str, Any]) -> str:
    """The licence of a package: its identifier, or the end of its name."""
    given = [
        one.get("expression") or one["license"].get("id") or one["license"]["name"] for one in component["licenses"]
    ]
    short = {str(one).rpartition(" :: ")[2].partition("\n")[0][:40] for one in given}
    return " and ".join(sorted(short))


def main(path: Path) -> None:
    """Print a line for each licence; the exit code is 1 where a package has none."""
    components = json.loads(path.read_text(encoding="utf-8"))["components"]
    packages, unknown = defaultdict(list), []
    for one in components:
        name = f"{one['name']} {one['version']}"
        packages[licence_of(one)].append(name) if one.get("licenses") else unknown.append(name)
    for licence, names in sorted(packages.items(), key=lambda item: (-len(item[1]), item[0])):
        print(f"{len(names):4}  {licence:42} {', '.join(sorted(names, key=str.lower))}")
    print(f"{len(components)} packages in {path}; without a licence: {', '.join(unknown) or 'none'}")
    raise SystemExit(bool(unknown))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
