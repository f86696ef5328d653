"""Send an exported model to the Hugging Face hub."""

from __future__ import annotations

from pathlib import Path

from xlt_ray.errors import UserError, brief, in_one_line

_FILES = ("*.json", "*.safetensors", "*.txt", "*.model", "README.md")
"""What a model's folder may send; anything else stays here."""


def push_model(folder: Path, repo: str, public: bool = False) -> str:
    """Upload a model's folder as one commit; create the repository if there is none.

    Args:
        folder: Folder of a fine-tuned classifier, such as `best-model/`, with its card README.md.
        repo: `OWNER/NAME`.
        public: Whether a new repository is public. One that exists stays as it is.

    Returns:
        The commit's address.

    Raises:
        UserError: If the folder has no model or card, the name is invalid, there is no token, or
            the hub refuses or cannot be reached.
    """
    from huggingface_hub import HfApi
    from huggingface_hub.errors import (
        HfHubHTTPError,
        HFValidationError,
        LocalTokenNotFoundError,
        OfflineModeIsEnabled,
    )

    for name in ("config.json", "model.safetensors", "README.md"):
        if not (folder / name).is_file():
            raise UserError(
                f"model {folder}: it has no {name}; expected a folder such as "
                "runs/NAME-DATE/best-model"
            )
    if repo.count("/") != 1:
        raise UserError(f"--repo {brief(repo)}: expected OWNER/NAME")
    api = HfApi(library_name="xlt-ray")
    where = f"{repo} on {api.endpoint}"
    try:
        api.whoami()
        api.create_repo(repo, private=not public, exist_ok=True)
        commit = api.upload_folder(
            repo_id=repo,
            folder_path=folder,
            allow_patterns=list(_FILES),
            commit_message=f"xlt-ray: {folder.resolve().parent.name}",
        )
    except LocalTokenNotFoundError:
        raise UserError(
            f"{where}: there is no token; run `hf auth login`, or set HF_TOKEN"
        ) from None
    except HFValidationError as error:
        raise UserError(f"--repo {brief(repo)}: {in_one_line(error)}") from None
    except OfflineModeIsEnabled:
        raise UserError(f"{where}: HF_HUB_OFFLINE is set; unset it") from None
    except HfHubHTTPError as error:
        status = error.response.status_code
        if status in (401, 403):
            raise UserError(
                f"{where}: the token may not write there ({status}); it needs write access"
            ) from None
        raise UserError(f"{where}: the hub refuses: {brief(in_one_line(error))}") from None
    except Exception as error:
        # Errors of the connection belong to an HTTP library, httpx or a successor of that name.
        if not isinstance(error, OSError) and not type(error).__module__.startswith("httpx"):
            raise
        raise UserError(f"{where}: cannot be reached: {brief(in_one_line(error))}") from None
    return str(commit.commit_url)
