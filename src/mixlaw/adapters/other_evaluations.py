"""Results of OLMES and inspect-ai in the shape of lm-evaluation-harness, so that one way joins them to a table."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

from mixlaw.errors import InputError
from mixlaw.files import read_text

#: Endings of files of these programs; JSON of inspect-ai is told by its content.
OLMES, INSPECT = "metrics-all.jsonl", ".eval"


def olmes(path: Path) -> dict[str, Any]:
    """The lines of a `metrics-all.jsonl`, one per task; means over other lines (macro, micro) are left out.

    Raises:
        InputError: a line is none that OLMES writes, or the lines are of several models.
    """
    results: dict[str, Mapping[str, Any]] = {}
    models: dict[str, Mapping[str, Any]] = {}
    shots, counts, versions = {}, {}, {}
    for number, line in enumerate(read_text(path).splitlines(), 1):
        if not line.strip():
            continue
        try:
            entry = json.loads(line)
            config, model, metrics = entry["task_config"], entry["model_config"], entry["metrics"]
            name = str((config.get("metadata") or {}).get("alias") or entry["task_name"])
            primary = config.get("primary_metric")
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            what = f"has no key {error}" if isinstance(error, KeyError) else f"cannot be read ({error})"
            raise InputError(
                f"{path} holds no results of OLMES: line {number} {what}; evaluate again, or move it out of the way"
            ) from error
        if primary in ("macro", "micro"):
            continue
        if name in results:
            raise InputError(f"{path}, line {number}: task {name!r} occurs twice; keep one of its lines")
        results[name] = metrics
        models[str(model.get("model_path") or model.get("model"))] = model
        shots[name], versions[name] = config.get("num_shots"), entry.get("task_hash")
        counts[name] = {"effective": entry.get("num_instances")}
    if len(models) > 1:
        raise InputError(
            f"{path} has results of several models: {', '.join(sorted(models)[:3])}; a file is one model's"
        )
    name, model = next(iter(models.items()), ("", {}))
    return {
        "results": results,
        "model_name": name,
        "config": {"model_args": {"revision": model.get("revision")}},
        "n-shot": shots,
        "n-samples": counts,
        "versions": versions,
    }


def inspect_ai(path: Path) -> dict[str, Any] | None:
    """A log of inspect-ai, as JSON or `.eval`; None where the JSON is another.

    Raises:
        InputError: the evaluation did not end well, or the log cannot be read.
    """
    log = _log(path)
    if not isinstance(log, dict) or not isinstance(log.get("eval"), dict) or "status" not in log:
        return None
    about = log["eval"]
    if log["status"] != "success":
        raise InputError(
            f"{path}: this evaluation is {log['status']!r}, not a success; run it again, or move the file away"
        )
    found: dict[str, float] = {}
    scores = (log.get("results") or {}).get("scores") or []
    for score in scores:
        metrics = {key: entry["value"] for key, entry in score["metrics"].items()}
        filtered = f",{score['name']}" if len(scores) > 1 else ""
        found |= {key + filtered: value for key, value in metrics.items() if key != "stderr"}
        if "stderr" in metrics:
            found[f"accuracy_stderr{filtered}"] = metrics["stderr"]
    args = about.get("model_args") or {}
    task = str(about["task"])
    return {
        "results": {task: found},
        "model_name": args.get("model_path") or about["model"],
        "config": {"model_args": {"revision": args.get("revision")}, "limit": (about.get("config") or {}).get("limit")},
        "n-samples": {task: {"effective": (log.get("results") or {}).get("completed_samples")}},
        "versions": {task: about.get("task_version")},
        "date": datetime.fromisoformat(about["created"]).timestamp(),
    }


def _log(path: Path) -> Any:
    """Content of a log without its samples; what is packed in a way that Python does not know is left to inspect-ai."""
    try:
        if path.suffix != INSPECT:
            return json.loads(read_text(path))
        with zipfile.ZipFile(path) as packed:
            return json.loads(packed.read("header.json"))
    except NotImplementedError:
        pass
    except (OSError, KeyError, ValueError, RecursionError, zipfile.BadZipFile) as error:
        raise InputError(f"{path} is no log of inspect-ai: {error}; write it again, or move it away") from error
    try:
        from inspect_ai.log import read_eval_log
    except ModuleNotFoundError as error:
        raise InputError(
            f"{path} is packed with zstd: pip install inspect-ai, or inspect log convert --to json first"
        ) from error
    return json.loads(read_eval_log(str(path), header_only=True).model_dump_json())
