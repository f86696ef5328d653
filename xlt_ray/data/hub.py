"""Fetch files of Hugging Face hub repositories; `sources` and `tokenized` call it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from xlt_ray.errors import UserError, refused_writing

_PATIENCE = 10.0
"""Seconds a hub may take to answer before the cache is used."""


def hub_folder(
    name: str,
    kind: Literal["model", "dataset"],
    patterns: Sequence[str],
    revision: str | None,
    remedy: str,
) -> Path:
    """Fetch some files of a repository into the hub's cache, or use the cached ones.

    The hub is asked for the revision's commit; files already in the cache are not fetched again.
    Without a connection (or with ``HF_HUB_OFFLINE=1``) the cached files are used.

    Args:
        name: The repository, such as ``facebook/xnli``.
        kind: Kind of repository.
        patterns: File names or globs; nothing else is fetched.
        revision: Branch, tag or commit; None: the main branch.
        remedy: What the user can do if the hub cannot be reached; ends the error message.

    Returns:
        A folder with the fetched files in their places in the repository.

    Raises:
        UserError: If there is no such repository or revision, or the hub cannot be reached and
            the files are not in its cache.
    """
    from huggingface_hub import HfApi, constants, snapshot_download
    from huggingface_hub.errors import RepositoryNotFoundError, RevisionNotFoundError

    what = f"{'data set' if kind == 'dataset' else 'model'} '{name}'"

    def fetch(from_cache: bool) -> Path:
        return Path(
            snapshot_download(
                name,
                repo_type=kind,
                revision=revision,
                allow_patterns=list(patterns),
                local_files_only=from_cache,
            )
        )

    try:
        # snapshot_download alone would wait forever for a hub that does not answer.
        HfApi().repo_info(name, repo_type=kind, revision=revision, timeout=_PATIENCE)
        return fetch(from_cache=False)
    except RevisionNotFoundError:
        raise UserError(f"{what}: no revision '{revision}' at {constants.ENDPOINT}") from None
    except RepositoryNotFoundError:
        raise UserError(
            f"{what}: there is none at {constants.ENDPOINT}, or it needs a login; {remedy}"
        ) from None
    # The remedy is the same for every other error of the network or the client.
    except Exception as error:
        reason = next(iter(str(error).splitlines()), "") or type(error).__name__
        if refused_writing(error):
            remedy = (
                f"its cache in {constants.HF_HOME} cannot be written to, set HF_HOME to a folder "
                "that can"
            )
    try:
        return fetch(from_cache=True)
    except Exception:
        raise UserError(
            f"{what}: cannot be fetched from {constants.ENDPOINT} and is not in the cache "
            f"({reason}); {remedy}"
        ) from None
