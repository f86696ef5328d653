"""Print the package index that the Makefile takes torch from; nothing for pip's own.

On Linux, pip's default build of torch brings gigabytes of CUDA libraries. A machine without an
NVIDIA GPU does not need them, so it takes the CPU build of pytorch.org. Runs before anything is
installed: standard library only.
"""

from __future__ import annotations

import glob
import os
import platform
import re
import shutil
import subprocess
import sys
import urllib.parse
import urllib.request

CPU_INDEX = "https://download.pytorch.org/whl/cpu"
SECONDS = 5.0
"""How long the CPU index may take to answer."""

_SETTINGS = ("PIP_INDEX_URL", "PIP_EXTRA_INDEX_URL", "PIP_FIND_LINKS", "PIP_NO_INDEX")
_OWN_SOURCE = re.compile(r"^\S*\.(index-url|extra-index-url|find-links|no-index)=", re.MULTILINE)
_SOURCE_FLAG = re.compile(r"(^|\s)(-i|-f|--index-url|--extra-index-url|--find-links|--no-index)\b")


def has_gpu() -> bool:
    """Return whether this machine has an NVIDIA GPU or its driver."""
    return shutil.which("nvidia-smi") is not None or bool(glob.glob("/dev/nvidia*"))


def has_own_source(pip_arguments: str) -> bool:
    """Return whether the user has configured where pip finds packages.

    Args:
        pip_arguments: Further arguments of `pip install`.
    """
    if _SOURCE_FLAG.search(pip_arguments) or any(os.environ.get(name) for name in _SETTINGS):
        return True
    # pip knows where its configuration files are.
    listed = subprocess.run(
        [sys.executable, "-m", "pip", "config", "list"], capture_output=True, text=True
    )
    return bool(_OWN_SOURCE.search(listed.stdout))


def offers(index: str, version: str, seconds: float = SECONDS) -> bool:
    """Return whether an index has the CPU build of a torch version for this Python and machine.

    Args:
        index: URL of a package index.
        version: The version, such as `2.7.1`.
        seconds: How long the index may take to answer.

    Returns:
        False as well if the index cannot be reached.
    """
    try:
        with urllib.request.urlopen(f"{index}/torch/", timeout=seconds) as answer:
            page = urllib.parse.unquote(answer.read().decode())
    except (OSError, ValueError):
        return False
    python = "cp{}{}".format(*sys.version_info[:2])
    wheel = re.escape(f"torch-{version}+cpu-{python}-{python}-")
    return re.search(rf"{wheel}\w*{re.escape(platform.machine())}\.whl", page) is not None


def torch_index(version: str, given: str = "", pip_arguments: str = "") -> str:
    """Return the index to take torch from; empty for pip's own.

    Args:
        version: The version of torch.
        given: The index that the user chose; empty for none.
        pip_arguments: Further arguments of `pip install`.
    """
    if given:
        return given
    if platform.system() != "Linux" or has_gpu() or has_own_source(pip_arguments):
        return ""
    return CPU_INDEX if offers(CPU_INDEX, version) else ""


if __name__ == "__main__":
    # Make passes its variables on in the environment.
    asked = (os.environ.get(name, "") for name in ("TORCH_INDEX", "PIP_EXTRA_ARGS"))
    print(torch_index(sys.argv[1], *asked))
