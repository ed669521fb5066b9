"""An environment of its own for each peer: what one of them needs may be years older than what the kit needs.

Each is a folder in the user's cache, filled by pip with exactly the versions that `requirements/NAME.txt` lists
(what `pip freeze` said where it worked), once. The stamp is written last: a folder without it is half built,
and made again. 300 MB for ONNX Runtime, 630 MB for NNCF, 760 MB for neural-compressor; none brings PyTorch.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import venv
from pathlib import Path

from labkit.data import cache_folder
from labkit.errors import UnavailableError

_REQUIREMENTS = Path(__file__).parent / "requirements"
_STAMP = "complete"


def python_of(environment: str, limit_s: float = 900.0) -> Path:
    """The Python of the environment named so; it is made if it is not there yet, which takes a minute or two.

    Raises UnavailableError with pip's reason if it cannot be filled, and leaves nothing half built behind.
    """
    wanted = _REQUIREMENTS / f"{environment}.txt"
    digest = hashlib.sha256(sys.version.encode() + wanted.read_bytes()).hexdigest()[:12]
    folder = cache_folder() / "benchmarks" / f"{environment}-{digest}"
    python = folder / ("bin/python" if os.name == "posix" else "Scripts/python.exe")
    if not (folder / _STAMP).exists():
        shutil.rmtree(folder, ignore_errors=True)
        try:
            venv.create(folder, symlinks=os.name == "posix")
            _fill(python, wanted, limit_s)
            (folder / _STAMP).touch()
        except BaseException:  # Ctrl-C too
            shutil.rmtree(folder, ignore_errors=True)
            raise
    return python


def _fill(python: Path, wanted: Path, limit_s: float) -> None:
    """Let the kit's own pip install into it: nothing but what is listed, so that pip has nothing to choose."""
    pip = [
        sys.executable,
        "-m",
        "pip",
        "--python",
        str(python),
        "install",
        "--quiet",
        "--no-input",
        "--no-deps",
    ]
    try:
        done = subprocess.run([*pip, "-r", str(wanted)], capture_output=True, text=True, timeout=limit_s)
    except subprocess.TimeoutExpired:
        reason = f"pip was not done after {limit_s:.0f} s"
    else:
        if done.returncode == 0:
            return
        errors = [line for line in done.stderr.splitlines() if line.startswith("ERROR")]
        reason = (errors or done.stderr.splitlines() or ["pip gave no reason"])[-1]
    raise UnavailableError(
        f"the environment of {wanted.stem!r} cannot be made: {reason}. See that pip reaches its index "
        f"(or set PIP_NO_INDEX=1 PIP_FIND_LINKS=FOLDER), then start the benchmark again"
    )
