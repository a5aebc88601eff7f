"""Datasets on the Hugging Face hub, through huggingface_hub: their Parquet, JSONL or CSV files, kept in its cache.

Where the hub cannot be reached, or HF_HUB_OFFLINE is set, a dataset that is in the cache is taken from there. HF_ENDPOINT
and HF_TOKEN mean what they mean to every program that uses the hub.
"""

from __future__ import annotations

import re
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from asearch.errors import AsearchError, UsageError

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from huggingface_hub import HfApi

HUB_ID = re.compile(r"[\w.-]+/[\w.-]+(@[\w./-]+)?")
KINDS = (".parquet", ".jsonl", ".json", ".csv")  # in this order where a dataset has its rows more than once
CONVERTED = "refs/convert/parquet"  # where the hub puts Parquet files of datasets that have none


class HubFailed(AsearchError):
    """The hub did not give a dataset."""


def is_hub_id(name: str) -> bool:
    """Whether a name has the form "owner/name", with "@revision" perhaps."""
    return HUB_ID.fullmatch(name) is not None


def fetch(name: str, split: str | None, subset: str | None) -> tuple[list[Path], str]:
    """The files of one split of a dataset, downloaded, and the revision that they are of.

    Args:
        name: "owner/name" or "owner/name@revision".
        split: "test", say; None takes the only one, or "test" where there is one.
        subset: the folder of one of several subsets.

    Raises:
        HubFailed: the hub cannot be reached and the dataset is not in the cache, or access is refused.
        UsageError: there is no such dataset, split or subset.
    """
    repo, _, revision = name.partition("@")
    try:
        return _from_hub(repo, revision or None, split, subset)
    except (UsageError, HubFailed):
        raise
    except Exception as failure:
        import huggingface_hub.errors as hub

        if isinstance(failure, hub.GatedRepoError):
            raise HubFailed(f"{name} asks for consent: accept its terms on the hub and set HF_TOKEN") from None
        if isinstance(failure, hub.RepositoryNotFoundError | hub.RevisionNotFoundError):
            raise UsageError(
                f"there is no dataset {name} on the hub, or it is private and HF_TOKEN is not set"
            ) from None
        if not _is_absence(failure):
            raise HubFailed(f"the hub did not give {name}: {_first_line(failure)}") from failure
        return _from_cache(repo, revision or None, split, subset, failure)


def _from_hub(repo: str, revision: str | None, split: str | None, subset: str | None) -> tuple[list[Path], str]:
    from huggingface_hub import HfApi, hf_hub_download
    from huggingface_hub.errors import RevisionNotFoundError

    api, branch = HfApi(), revision or "main"
    names = _listed(api, repo, branch)
    if revision is None and not any(PurePosixPath(name).suffix in KINDS for name in names):
        branch = CONVERTED
        try:
            names = _listed(api, repo, branch)
        except RevisionNotFoundError:
            raise UsageError(f"{repo} has no file of a kind that can be read ({', '.join(KINDS)})") from None
    wanted = choose(names, repo, split, subset)
    files = [Path(hf_hub_download(repo, name, repo_type="dataset", revision=branch)) for name in wanted]
    commit = files[0].parts[len(files[0].parts) - len(PurePosixPath(wanted[0]).parts) - 1]  # the snapshot's folder
    return files, commit


def _listed(api: HfApi, repo: str, revision: str) -> list[str]:
    return [sibling.rfilename for sibling in api.dataset_info(repo, revision=revision).siblings or []]


def _from_cache(
    repo: str, revision: str | None, split: str | None, subset: str | None, failure: Exception
) -> tuple[list[Path], str]:
    """The files that an earlier run left in the cache."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import LocalEntryNotFoundError

    try:
        folder = Path(snapshot_download(repo, repo_type="dataset", revision=revision, local_files_only=True))
    except LocalEntryNotFoundError:
        raise HubFailed(
            f"the hub cannot be reached ({_first_line(failure)}), and {repo} is not in its cache; download the file and "
            "pass its name"
        ) from None
    there = [file.relative_to(folder).as_posix() for file in folder.rglob("*") if file.is_file()]
    return [folder / name for name in choose(there, repo, split, subset)], folder.name


def _is_absence(failure: Exception) -> bool:
    """Whether the hub could not be reached at all, or may not be asked."""
    import huggingface_hub.errors as hub

    kinds = {cls.__name__ for cls in type(failure).__mro__}
    absent = {"OfflineModeIsEnabled", "ConnectionError", "ConnectError", "TimeoutException", "Timeout", "NetworkError"}
    return isinstance(failure, hub.OfflineModeIsEnabled | OSError) or bool(kinds & absent)


def choose(names: Iterable[str], repo: str, split: str | None, subset: str | None) -> list[str]:
    """The files of one split of one subset, by how files are laid out on the hub.

    A split is named by the file ("test.jsonl", "data/test-00000-of-00001.parquet") or its folder ("test/0000.parquet"),
    a subset by a folder above it.

    Raises:
        UsageError: there is none, or there are several to choose from.
    """
    for kind in KINDS:
        files = [name for name in sorted(names) if PurePosixPath(name).suffix == kind]
        if files:
            break
    else:
        raise UsageError(f"{repo} has no file of a kind that can be read ({', '.join(KINDS)})")
    places = {name: place(name) for name in files}
    subset = _one(subset, [where for where, _ in places.values()], "subset", repo)
    files = [name for name in files if places[name][0] == subset]
    split = _one(split, [places[name][1] for name in files], "split", repo, usual="test")
    return [name for name in files if places[name][1] == split]


def place(name: str) -> tuple[str, str]:
    """Subset and split of a file by its path; the subset is "" where no folder names one.

    >>> place("main/test-00000-of-00001.parquet")
    ('main', 'test')
    """
    path = PurePosixPath(name)
    stem = re.sub(r"-\d+-of-\d+$", "", path.stem)
    folders = [folder for folder in path.parent.parts if folder != "data"]
    if stem.isdigit() and folders:  # 0000.parquet in the folder of its split
        stem = folders.pop()
    return "/".join(folders), stem


def _one(wanted: str | None, there: Sequence[str], what: str, repo: str, usual: str = "default") -> str:
    """The wanted subset or split; without a wish the only one, or the usual one."""
    found = sorted(set(there))
    if wanted is None:
        wanted = found[0] if len(found) == 1 else next((name for name in (usual, "") if name in found), None)
    if wanted in found:
        return wanted
    names = ", ".join(repr(name) for name in found)
    if wanted is None:
        raise UsageError(f"{repo} has several {what}s: choose one of {names} (--{what})")
    raise UsageError(f"{repo} has no {what} {wanted!r}; it has {names}")


def _first_line(failure: Exception) -> str:
    return (str(failure).strip().splitlines() or [type(failure).__name__])[0]
