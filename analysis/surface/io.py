"""Surfaces on disk: words as JSON, which names the files of tensors and pickled regressors and their checksums.

Those files are named by their content and the JSON is replaced in one step, so that a folder holds whole surfaces at
any moment: the old ones or the new.
"""

from __future__ import annotations

import hashlib
import json
import pickle
from collections.abc import Callable
from contextlib import suppress
from dataclasses import fields
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
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
from mixlaw.analysis.surface.own_pickles import is_own, signature
from mixlaw.analysis.surface.regressors import Regressors
from mixlaw.analysis.surface.saved import FORMAT, NAMES
from mixlaw.errors import InputError
from mixlaw.files import is_whole, replacing, sealed, write_json

_TENSORS, _PICKLED = "surfaces-{}.safetensors", "regressors-{}.pickle"


def write(surfaces: ResponseModel, folder: Path) -> None:
    """Write surfaces, replacing older ones."""
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
    content = save({k: v.detach().contiguous() for k, v in tensors.items()})
    words = _words(surfaces) | {"audit": None, "tensors": _put(folder, _TENSORS, content)}
    if modules := _modules(words):
        words |= {"modules": signature(modules)}
    if surfaces.regressors:
        pickled = pickle.dumps([one.estimators for one in surfaces.regressors])
        words |= {"pickled": _put(folder, _PICKLED, pickled), "signature": signature(pickled)}
    if surfaces.audit is not None:
        folds = [{"kind": held.fold.kind, "extrapolates": held.fold.extrapolates} for held in surfaces.audit.held]
        words |= {"audit": surfaces.audit.table.to_dicts(), "folds": folds}
    write_json(folder / NAMES, sealed(words))
    for path in (*folder.glob("*.safetensors"), *folder.glob("*.pickle")):
        if path.name not in (words["tensors"], words.get("pickled")):
            path.unlink(missing_ok=True)


def _put(folder: Path, name: str, content: bytes) -> str:
    """Write a file named by its content; its name."""
    name = name.format(hashlib.sha256(content).hexdigest()[:16])
    with replacing(folder / name) as path:
        path.write_bytes(content)
    return name


def _get(folder: Path, name: str, form: str) -> bytes:
    """Read a file that `_put` wrote, if it is still what it wrote."""
    content = (folder / Path(name).name).read_bytes()
    if name != form.format(hashlib.sha256(content).hexdigest()[:16]):
        raise ValueError(f"{name} differs from its checksum")
    return content


def read(folder: Path) -> dict[str, Any]:
    """Read the fields of surfaces.

    Raises:
        InputError: there is nothing, or it is of another version or damaged.
    """
    try:
        return _read(folder)
    except FileNotFoundError:  # another process has replaced them meanwhile
        with suppress(FileNotFoundError):
            return _read(folder)
        raise InputError(f"surfaces in {folder} are damaged (a file is missing); fit again") from None


def _read(folder: Path) -> dict[str, Any]:
    if not (folder / NAMES).exists():
        raise InputError(f"no surfaces in {folder}; fit first")
    try:
        words: dict[str, Any] = json.loads((folder / NAMES).read_text(encoding="utf-8"))
        if words.get("format") != FORMAT:
            raise InputError(f"surfaces in {folder} have format {words.get('format')}, this is {FORMAT}; fit again")
        if not is_whole(words):
            raise ValueError(f"{NAMES} differs from its checksum")
        return _build(words, load(_get(folder, words["tensors"], _TENSORS)), folder)
    except (InputError, FileNotFoundError):
        raise
    except (ValueError, TypeError, AttributeError, SafetensorError, KeyError, OSError, RuntimeError) as error:
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


def _modules(words: dict[str, Any]) -> bytes:
    """The laws that are not ours, which run what their modules hold when they are read; what is signed of them."""
    laws = [saved["law"] for saved in words["members"] if ":" in saved["law"]]
    return json.dumps(laws).encode() if laws else b""


def _build(words: dict[str, Any], tensors: dict[str, Tensor], folder: Path) -> dict[str, Any]:
    def part(prefix: str) -> dict[str, Any]:
        return {k.split(".", 1)[1]: v for k, v in tensors.items() if k.startswith(f"{prefix}.")}

    names: dict[str, Any] = {name: tuple(words[name]) for name in ("phases", "domains", "runs")}
    design = Design(**part("design"), **names)
    observed = Observed(design, tuple(words["tasks"]), tuple(words["units"]), **part("observed"))
    regressors = _regressors(words, folder, part)
    if (modules := _modules(words)) and not is_own(modules, words.get("modules", "")):
        raise InputError(
            f"the surfaces in {folder} have laws of other modules, {modules.decode()}, and were fitted by another "
            "user or elsewhere; a module runs when it is imported: read it, and fit here again"
        )
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
        "regressors": regressors,
        "beside": Beside(by_row=words["by_row"], **part("beside")) if words["regressors"] else None,
        "discrepancy": Discrepancy(**between) if (between := part("discrepancy")) else None,
    }


def _regressors(words: dict[str, Any], folder: Path, part: Callable[[str], dict[str, Any]]) -> tuple[Regressors, ...]:
    """The fitted estimators; a pickle runs code when it is loaded, so that only this user's own are."""
    if not words["regressors"]:
        return ()
    pickled = _get(folder, words["pickled"], _PICKLED)
    if not is_own(pickled, words["signature"]):
        raise InputError(
            f"the regressors of the surfaces in {folder} were pickled by another user or elsewhere, and a pickle "
            "runs code when it is loaded; fit them here: study.fit(beside=..., save=True), or `mixlaw fit` without them"
        )
    with importable((folder.parent,)):
        try:
            estimators = pickle.loads(pickled)
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
