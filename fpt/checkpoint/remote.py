"""Checkpoints on the Hub: send one, fetch one.

A push goes through huggingface_hub: files that have arrived are not sent again when the connection breaks. The token is the one
of ``hf auth login`` or ``$HF_TOKEN``. Whatever happens, the checkpoint on this machine stays as it is.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from fpt.errors import FPTError
from fpt.text.log import Log, silent
from fpt.untrusted.pretrained import announce

# What a checkpoint has; nothing else is sent, and nothing else is fetched.
FILES = ("model.safetensors", "config.json", "tokenizer.json", "tokenizer_config.json", "README.md")
ATTEMPTS = 5
# Seconds before the second attempt; each further one waits twice as long.
WAIT = float(os.environ.get("FPT_HUB_WAIT", "2"))
NAME = re.compile(r"(?P<repo>[\w][\w.-]*/[\w][\w.-]*)(@(?P<revision>[\w][\w./-]*))?")


def is_hub_name(text: str) -> bool:
    """Whether `text` could be ``user/repo`` or ``user/repo@revision``."""
    return NAME.fullmatch(text) is not None


def check_push(repo: str) -> None:
    """Find out early what would make a push fail.

    Raises:
        FPTError: the name is none of a repository, or there is no token.
    """
    from huggingface_hub import get_token

    if not is_hub_name(repo) or "@" in repo:
        raise FPTError(f"--push_to_hub {repo}: give USER/REPOSITORY")
    if get_token() is None:
        raise FPTError("--push_to_hub needs a token that may write: run `hf auth login`, or set HF_TOKEN")


def push(folder: Path, repo: str, private: bool = False, log: Log = print, source: Path | None = None) -> str:
    """Send a checkpoint folder to the Hub, as one commit.

    Args:
        private: of a repository that is made by this.
        source: where the checkpoint stays, when `folder` is a copy that does not.

    Returns:
        The commit's page.

    Raises:
        FPTError: the Hub refuses it, or can't be reached after several attempts.
    """
    from huggingface_hub import HfApi

    api = HfApi()
    kept = source or folder

    def send() -> str:
        api.create_repo(repo, private=private, exist_ok=True)
        said = "Frozen pretrained transformer"
        done = api.upload_folder(repo_id=repo, folder_path=folder, allow_patterns=list(FILES), commit_message=said)
        return str(done.commit_url)

    try:
        page = _several_times(send, f"push to {repo}", log)
    except FPTError as error:
        raise FPTError(f"{error}; {kept} is whole, push it again with `python -m fpt.hub {kept} {repo}`") from error
    log(f"pushed to {page}")
    return page


def pull(name: str, log: Log = silent) -> Path:
    """Fetch a checkpoint from the Hub, or take it from the Hub's cache.

    Args:
        name: ``user/repo`` or ``user/repo@revision``.

    Raises:
        FPTError: it is not available.
    """
    from huggingface_hub import snapshot_download

    match = NAME.fullmatch(name)
    if match is None:
        raise FPTError(f"{name} is no name of a repository; give USER/REPOSITORY or USER/REPOSITORY@REVISION")

    announce(match["repo"], match["revision"])

    def fetch() -> str:
        return snapshot_download(match["repo"], revision=match["revision"], allow_patterns=list(FILES))

    # Before: whoever runs this may not want it.
    log(f"checkpoint: fetching {name} from the Hub")
    try:
        folder = Path(_several_times(fetch, f"fetch of {name}", log))
    except FPTError as error:
        raise FPTError(f"{name} is not a folder here, and is not available from the Hub: {error}") from error
    log(f"checkpoint: {name} from the Hub, commit {folder.name[:12]}")
    return folder


def _several_times(do: Callable[[], str], what: str, log: Log) -> str:
    """Do something over the network, again where another attempt may do better.

    Raises:
        FPTError: it was refused, or failed every time.
    """
    for attempt in range(1, ATTEMPTS + 1):
        try:
            return do()
        except Exception as error:  # which kinds its HTTP client raises is huggingface_hub's own affair
            cause = _cause(error)
            if not (_answered(cause) or isinstance(cause, OSError | ValueError | RuntimeError)):
                raise
            if not _may_pass(cause):
                raise FPTError(f"{what} was refused: {_in_words(cause)}") from error
            if attempt == ATTEMPTS:
                raise FPTError(f"{what} failed {ATTEMPTS} times: {_in_words(cause)}") from error
            log(f"{what}: {_in_words(cause)}; trying again")
            time.sleep(WAIT * 2 ** (attempt - 1))
    raise AssertionError


def _cause(error: BaseException) -> BaseException:
    """The answer of the server behind an error, where there is one."""
    known: BaseException | None = error
    while known is not None:
        if _answered(known):
            return known
        known = known.__cause__ or known.__context__
    return error


def _answered(error: BaseException) -> bool:
    """Whether it is an answer of the server, or none came since the connection failed."""
    return getattr(error, "response", None) is not None or _is_transport(error)


def _may_pass(error: BaseException) -> bool:
    """Whether another attempt may do better: the server was busy or broken, or the connection was."""
    status = getattr(getattr(error, "response", None), "status_code", None)
    if status is not None:
        return status >= 500 or status in (408, 425, 429)
    return _is_transport(error) or isinstance(error, (ConnectionError, TimeoutError))


def _is_transport(error: BaseException) -> bool:
    # By name: which HTTP client it uses is huggingface_hub's own affair.
    return any(kind.__name__ == "TransportError" for kind in type(error).__mro__)


def _in_words(error: BaseException) -> str:
    response: Any = getattr(error, "response", None)
    said = str(getattr(error, "server_message", "") or "") or next(iter(str(error).strip().splitlines()), "")
    status = f"status {response.status_code}: " if response is not None else ""
    return f"{status}{said or type(error).__name__}"
