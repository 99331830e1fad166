"""A study as a dataset on the Hugging Face hub: settings, runs, fit, proposals, report."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mixlaw.errors import InputError
from mixlaw.folder import Folder
from mixlaw.settings import study_folder

if TYPE_CHECKING:
    from huggingface_hub import HfApi

#: Files of a study that are shared, as globs; nothing that could hold a program, such as a module or a pickle.
SHARED = (
    *("study.toml", "runs/*/record.json", "recipes/*.json", "suggestions/*.jsonl", "proposals/*.json", "report.html"),
    *("surfaces/*.json", "surfaces/*.safetensors"),
)
#: A copy for the viewer of the hub, and a card; both are made from the study.
TABLE, CARD = "runs.parquet", "README.md"


@dataclass(frozen=True)
class Shared:
    """What was pushed or pulled: the dataset, the folder, the number of files."""

    repository: str
    study: Path
    files: int
    pushed: bool

    def as_json(self) -> dict[str, Any]:
        """Plain data for `--json`."""
        return {"repository": self.repository, "study": str(self.study), "files": self.files}

    def __str__(self) -> str:
        way = f"pushed {self.study} to" if self.pushed else f"pulled {self.study} from"
        return f"{way} the dataset {self.repository}, {self.files} files"


def push(study: Folder, repository: str, *, public: bool = False) -> Shared:
    """Write settings, table of runs, fit, proposals and report to a dataset of the hub, in one commit.

    Args:
        study: the study.
        repository: OWNER/NAME of the dataset, which is created if there is none.
        public: whether a dataset that is created can be seen by everybody.

    Raises:
        InputError: huggingface_hub is missing, or the hub refuses, for instance without a token.
    """
    table, card = study.table(), _card(study)
    with _hub() as api:
        from huggingface_hub import CommitOperationAdd

        files: dict[str, Path | bytes] = {
            path.relative_to(study.path).as_posix(): path
            for glob in SHARED
            for path in sorted(study.path.glob(glob))
            if path.is_file() and not path.is_symlink()  # to what is not of the study
        }
        table.write_parquet(content := BytesIO())
        files |= {TABLE: content.getvalue(), CARD: card.encode()}
        add = [CommitOperationAdd(name, content) for name, content in files.items()]
        api.create_repo(repository, repo_type="dataset", private=not public, exist_ok=True)
        api.create_commit(repository, add, commit_message=f"mixlaw push of {table.height} rows", repo_type="dataset")
    return Shared(repository, study.path, len(files), pushed=True)


def pull(study: str | os.PathLike[str], repository: str) -> Shared:
    """Read a study from a dataset of the hub into a new folder.

    Args:
        study: the folder, which must be new or empty: a study that is there is never changed.
        repository: OWNER/NAME of the dataset.

    Raises:
        InputError: there is something in the folder, the dataset holds no study, or the hub refuses.
    """
    folder = study_folder(study)
    if folder.exists() and next(folder.iterdir(), None) is not None:
        raise InputError(f"{folder} is not empty; pull into a new folder")
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".pull-") as temporary, _hub() as api:
        api.snapshot_download(
            repository, repo_type="dataset", local_dir=temporary, allow_patterns=list(SHARED), max_workers=4
        )
        found = [path for glob in SHARED for path in Path(temporary).glob(glob)]
        if not (Path(temporary) / "study.toml").exists():
            raise InputError(f"the dataset {repository} holds no study.toml; `mixlaw push` writes one")
        _ = Folder(temporary).settings
        for path in found:
            place = folder / path.relative_to(temporary)
            place.parent.mkdir(parents=True, exist_ok=True)
            path.replace(place)
    return Shared(repository, folder, len(found), pushed=False)


@contextmanager
def _hub() -> Iterator[HfApi]:
    """The hub's client; what it refuses is one sentence."""
    try:
        from huggingface_hub import HfApi
        from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalTokenNotFoundError
    except ModuleNotFoundError as error:
        raise InputError("the hub's client is not installed: pip install 'mixlaw[hub]'") from error
    try:
        yield HfApi(endpoint=os.environ.get("HF_ENDPOINT"))
    except InputError:
        raise
    except HFValidationError as error:
        raise InputError(f"a dataset is OWNER/NAME: {str(error).splitlines()[0]}; correct it") from error
    except (HfHubHTTPError, LocalTokenNotFoundError) as error:
        said = " ".join(str(error).split("\n\n")[-1].split())
        raise InputError(f"the hub refused: {said}; check the name, and `hf auth login` or HF_TOKEN") from error
    except ValueError as error:  # such as a file that would lie outside the folder
        raise InputError(f"the hub's client refused: {' '.join(str(error).split())}") from error
    except Exception as error:
        kinds = {kind.__name__ for kind in type(error).__mro__}
        if not kinds & {"TransportError", "OSError"}:  # of httpx or its successor, whichever the client takes
            raise
        raise InputError(f"the hub cannot be reached: {error}; check the connection") from error


def _card(study: Folder) -> str:
    """A card: what the study is, its last proposal, how to read it."""
    settings, proposals = study.settings, study.proposals()
    about = [f"A mixlaw study of {', '.join(settings.domains)}."]
    about += [f"Target: {study.target()}."] if settings.target is not None else []
    about += [f"Last proposal: {proposals[-1].sentence}"] if proposals else []
    about.append(f"`mixlaw pull STUDY OWNER/NAME` opens it; `{TABLE}` has the runs.")
    head = f"---\ntags: [mixlaw]\nconfigs:\n- config_name: runs\n  data_files: {TABLE}\n---\n# {settings.name}\n\n"
    return head + "\n\n".join(about) + "\n"
