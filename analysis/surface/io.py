"""Surfaces on disk: tensors as safetensors, words as JSON, regressors pickled, each file whole or absent."""

from __future__ import annotations

import json
import pickle
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from mixlaw.analysis.audit.held import Fold, Held
from mixlaw.analysis.audit.result import Audit, audit_table
from mixlaw.analysis.audit.stacking import Beside
from mixlaw.analysis.data.design import Design
from mixlaw.analysis.data.observed import Observed
from mixlaw.analysis.fitting.pooling import Prior
from mixlaw.analysis.laws.base import Form, Law
from mixlaw.analysis.laws.named import importable, law_named, name_of
from mixlaw.analysis.laws.schedule import scheduled
from mixlaw.analysis.residual.process import Kernel
from mixlaw.analysis.surface.discrepancy import Discrepancy
from mixlaw.analysis.surface.link import FittedLink
from mixlaw.analysis.surface.member import Member
from mixlaw.analysis.surface.model import ResponseModel, Status
from mixlaw.analysis.surface.regressors import Regressors
from mixlaw.errors import InputError
from mixlaw.files import replacing, write_json

FORMAT = 9
_NAMES, _TENSORS, _PICKLED = "surfaces.json", "surfaces.safetensors", "regressors.pickle"


def write(surfaces: ResponseModel, folder: Path) -> None:
    """Write surfaces; the JSON comes last, so a folder with one is complete."""
    tensors = {"weights": surfaces.weights, "calibration": surfaces.calibration}
    tensors |= _tensors("observed", surfaces.observed) | _tensors("design", surfaces.observed.design)
    for i, member in enumerate(surfaces.members):
        tensors |= _tensors(f"member{i}", member) | _tensors(f"kernel{i}", member.kernel)
        tensors |= _tensors(f"prior{i}", member.prior)
    if surfaces.discrepancy is not None:
        tensors |= _tensors("discrepancy", surfaces.discrepancy)
    for i, link in enumerate(surfaces.links.values()):
        tensors |= _tensors(f"link{i}", link)
    for i, held in enumerate(surfaces.audit.held if surfaces.audit else ()):
        tensors |= _tensors(f"held{i}", held) | _tensors(f"fold{i}", held.fold)
    for i, one in enumerate(surfaces.regressors):
        tensors |= _tensors(f"regressor{i}", one)
    if surfaces.beside is not None:
        tensors |= _tensors("beside", surfaces.beside)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / _PICKLED).unlink(missing_ok=True)
    if surfaces.regressors:
        with replacing(folder / _PICKLED) as path:
            path.write_bytes(pickle.dumps([one.estimators for one in surfaces.regressors]))
    with replacing(folder / _TENSORS) as path:
        save_file({k: v.detach().contiguous() for k, v in tensors.items()}, path)
    words = _words(surfaces) | {"audit": None}
    if surfaces.audit is not None:
        folds = [{"kind": held.fold.kind, "extrapolates": held.fold.extrapolates} for held in surfaces.audit.held]
        words |= {"audit": surfaces.audit.table.to_dicts(), "folds": folds}
    write_json(folder / _NAMES, words)


def read(folder: Path) -> dict[str, Any]:
    """Read the fields of surfaces.

    Raises:
        InputError: there is nothing, or it is of another version or damaged.
    """
    if not (folder / _NAMES).exists():
        raise InputError(f"no surfaces in {folder}; fit first")
    try:
        words: dict[str, Any] = json.loads((folder / _NAMES).read_text(encoding="utf-8"))
        if words.get("format") != FORMAT:
            raise InputError(f"surfaces in {folder} have format {words.get('format')}, this is {FORMAT}; fit again")
        return _build(words, load_file(folder / _TENSORS), folder)
    except (json.JSONDecodeError, SafetensorError, KeyError, OSError, RuntimeError, pickle.UnpicklingError) as error:
        raise InputError(f"surfaces in {folder} are damaged ({error}); fit again") from error


def _tensors(prefix: str, value: object) -> dict[str, Tensor]:
    parts = {f.name: getattr(value, f.name) for f in fields(value)}  # type: ignore[arg-type]
    return {f"{prefix}.{name}": part for name, part in parts.items() if isinstance(part, Tensor)}


def _words(surfaces: ResponseModel) -> dict[str, Any]:
    design = surfaces.observed.design
    return {
        "format": FORMAT,
        "tasks": list(surfaces.tasks),
        "units": list(surfaces.observed.units),
        "phases": list(design.phases),
        "domains": list(design.domains),
        "runs": list(design.runs),
        "members": [
            {
                "name": m.name,
                "law": name_of(m.law),
                "seed": m.seed,
                "published": m.procedure is not None,
                "parameters": [p.name for p in m.form.parameters],
            }
            for m in surfaces.members
        ],
        "regressors": [one.name for one in surfaces.regressors],
        "by_row": surfaces.beside is not None and surfaces.beside.by_row,
        "links": {t: {"source": x.source, "unit": x.unit, "noise": x.noise} for t, x in surfaces.links.items()},
        "chance": dict(surfaces.chance),
        "status": {task: state.name for task, state in surfaces.status.items()},
        "notes": {task: list(notes) for task, notes in surfaces.notes.items()},
    }


def _form(saved: dict[str, Any], law: type[Law], design: Design) -> Form:
    """The shape of a saved member's law, if the law still has the parameters it was fitted with."""
    main = law.form(design)
    form = main if saved["published"] else scheduled(main, design)
    if [p.name for p in form.parameters] != saved["parameters"]:
        raise InputError(f"the surfaces were fitted with other parameters of {saved['law']}; fit again")
    return form


def _audit(words: dict[str, Any], part: Callable[[str], dict[str, Any]]) -> Audit | None:
    if words["audit"] is None:
        return None
    folds = [Fold(**saved, **part(f"fold{i}")) for i, saved in enumerate(words.get("folds", []))]
    held = tuple(Held(fold, **part(f"held{i}")) for i, fold in enumerate(folds))
    return Audit(audit_table(words["audit"]), held)


def _build(words: dict[str, Any], tensors: dict[str, Tensor], folder: Path) -> dict[str, Any]:
    def part(prefix: str) -> dict[str, Any]:
        return {k.split(".", 1)[1]: v for k, v in tensors.items() if k.startswith(f"{prefix}.")}

    names: dict[str, Any] = {name: tuple(words[name]) for name in ("phases", "domains", "runs")}
    design = Design(**part("design"), **names)
    observed = Observed(design, tuple(words["tasks"]), tuple(words["units"]), **part("observed"))
    members = []
    for i, saved in enumerate(words["members"]):
        kernel, prior = Kernel(**part(f"kernel{i}")), Prior(**part(f"prior{i}"))
        law = law_named(saved["law"], (folder.parent,))
        members.append(
            Member(
                name=saved["name"],
                law=law,
                form=_form(saved, law, design),
                observed=observed,
                kernel=kernel,
                prior=prior,
                seed=saved["seed"],
                procedure=getattr(law, "procedure", None) if saved["published"] else None,
                **part(f"member{i}"),
            )
        )
    return {
        "observed": observed,
        "members": tuple(members),
        "weights": tensors["weights"],
        "calibration": tensors["calibration"].to(torch.float64),
        "status": {task: Status[name] for task, name in words["status"].items()},
        "notes": {task: tuple(lines) for task, lines in words["notes"].items()},
        "audit": _audit(words, part),
        "links": {
            task: FittedLink(**saved, **part(f"link{i}"))
            for i, (task, saved) in enumerate(words.get("links", {}).items())
        },
        "chance": words.get("chance", {}),
        "regressors": _regressors(words, folder, part),
        "beside": Beside(by_row=words["by_row"], **part("beside")) if words["regressors"] else None,
        "discrepancy": Discrepancy(**between) if (between := part("discrepancy")) else None,
    }


def _regressors(words: dict[str, Any], folder: Path, part: Callable[[str], dict[str, Any]]) -> tuple[Regressors, ...]:
    """The fitted estimators; a pickle runs code, so a folder of surfaces deserves the trust that a program does."""
    if not words["regressors"]:
        return ()
    with importable((folder.parent,)):
        try:
            estimators = pickle.loads((folder / _PICKLED).read_bytes())
        except (ImportError, AttributeError) as error:
            names = ", ".join(words["regressors"])
            raise InputError(
                f"the regressors {names} of the surfaces in {folder} cannot be loaded ({error}): "
                "install their package, or put their module into the working directory or the study's folder"
            ) from error
    return tuple(
        Regressors(name, fitted, **part(f"regressor{i}"))
        for i, (name, fitted) in enumerate(zip(words["regressors"], estimators, strict=True))
    )
