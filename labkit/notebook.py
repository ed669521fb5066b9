"""Read a notebook, know its parameters, run it without a browser.

`run_notebook` starts a fresh kernel, runs each cell in turn, and always ends the kernel and all that it
started, whether the cells succeed, one raises, the kernel is killed, or the person presses Ctrl-C. The cells
run on a thread of their own: the caller's thread stays free to notice that it should stop.
"""

from __future__ import annotations

import ast
import asyncio
import copy
import json
import os
import signal
from collections.abc import Callable, Coroutine, Mapping
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import suppress
from pathlib import Path
from typing import Any

from labkit.errors import NotebookError
from labkit.files import read_json

_TICK_S = 0.2


def read_notebook(path: str | Path) -> Any:
    """An nbformat 4 notebook as nbformat's node. Raises NotebookError for anything else, and says where it is odd."""
    if Path(path).suffix != ".ipynb":
        raise NotebookError(f"{path} is not a notebook: give the path of an .ipynb file")
    document = read_json(path, NotebookError)  # a look of our own first: nbformat takes seconds to import
    cells = document.get("cells")
    if (
        document.get("nbformat") != 4
        or not isinstance(cells, list)
        or not all(isinstance(c, dict) for c in cells)
    ):
        raise NotebookError(f"{path} is not a notebook of format 4: open it in JupyterLab and save it again")
    import nbformat

    try:
        notebook = nbformat.reads(json.dumps(document), as_version=4)  # type: ignore[no-untyped-call]
        nbformat.validate(notebook, relax_add_props=True)  # `reads` only mutters; extra keys hurt nobody
        nbformat.writes(copy.deepcopy(notebook)).encode()  # type: ignore[no-untyped-call]  # what fails here fails later
    except Exception as error:  # nbformat and jsonschema raise many kinds
        place = "".join(f"/{key}" for key in getattr(error, "absolute_path", ()))
        reason = (str(error).splitlines() or [type(error).__name__])[0][:200]
        raise NotebookError(
            f"{path} is not a valid notebook: {reason}{place and f' (in {place})'}: save it again in JupyterLab"
        ) from None
    return notebook


def to_bytes(notebook: Any) -> bytes:
    """The notebook as a file's content; the same notebook always gives the same bytes."""
    import nbformat

    return f"{nbformat.writes(notebook)}\n".encode()  # type: ignore[no-untyped-call]


def parameters_of(notebook: Any, path: str | Path) -> dict[str, Any]:
    """Names and defaults of the cell tagged "parameters"; {} where there is none.

    Only literals stand there, one `NAME = value` a line: papermill writes the values of a run into a new cell
    after it, and anything that was computed from the old ones would still hold those. Raises NotebookError.
    """
    found: dict[str, Any] = {}
    for number, cell in enumerate(notebook.cells, 1):
        if "parameters" not in cell.metadata.get("tags", []):
            continue
        try:
            for line in ast.parse(cell.source).body:
                target: Any = (
                    line.targets[0] if isinstance(line, ast.Assign) else getattr(line, "target", None)
                )
                found[target.id] = ast.literal_eval(line.value)
        except (SyntaxError, ValueError, AttributeError):
            raise NotebookError(
                f"{path}: the parameters cell (cell {number}) must hold nothing but NAME = literal lines, "
                "such as BITS = 8; compute from them in a later cell",
                number,
            ) from None
    return found


def run_notebook(
    notebook: Any,
    folder: Path,
    environment: Mapping[str, str],
    *,
    cell_timeout_s: float | None = None,
    tick: Callable[[int], None] = lambda cell: None,
) -> None:
    """Run all cells in a fresh kernel, their outputs written into `notebook` as far as it comes.

    folder is the kernel's current one; environment is added to ours. `tick(cell)`, cell counted from 1, is
    called five times a second on the caller's thread (0 while the kernel starts), and may raise to stop the
    run. Raises NotebookError if a cell raises, takes longer than cell_timeout_s, or the kernel dies, which is
    noticed within about a second.
    """
    from jupyter_client.kernelspec import NoSuchKernel
    from jupyter_client.manager import AsyncKernelManager
    from nbclient import NotebookClient
    from nbclient.exceptions import CellExecutionError, CellTimeoutError

    number = 0  # of the cell that runs now

    def started(cell: Any, cell_index: int) -> None:
        nonlocal number
        number = cell_index + 1

    manager = AsyncKernelManager(kernel_name="python3")
    client = NotebookClient(
        notebook,
        km=manager,
        timeout=cell_timeout_s,
        resources={"metadata": {"path": str(folder)}},
        store_widget_state=False,
        record_timing=False,
        extra_arguments=["--IPKernelApp.log_level=ERROR"],
        on_cell_start=started,
    )

    async def run() -> None:
        try:
            await client.async_execute(env={**os.environ, **environment})
        finally:
            await _end_kernel(manager, client.kc)
            watchers = asyncio.all_tasks() - {asyncio.current_task()}
            for watcher in watchers:  # nbclient's own outlive a cancelled cell
                watcher.cancel()
            await asyncio.gather(*watchers, return_exceptions=True)

    try:
        _on_a_thread(run, lambda: tick(number))
    except CellExecutionError as error:
        reason, kind = f"raised {error.ename}: {error.evalue[:300]}", error.ename
    except CellTimeoutError:
        reason, kind = f"took longer than {cell_timeout_s:g} s", "Timeout"
    except NoSuchKernel:
        raise NotebookError("there is no Python kernel here; pip install ipykernel") from None
    except RuntimeError as error:  # nbclient's DeadKernelError among them
        if number == 0:
            raise NotebookError(f"the kernel did not start: {error}", kind="DeadKernel") from None
        reason, kind = "ended its kernel: it was killed, or ran out of memory", "DeadKernel"
    else:
        return
    first = (notebook.cells[number - 1].source.strip().splitlines() or [""])[0]
    raise NotebookError(f"cell {number} ({first[:60]}) {reason}", number, kind)


def _on_a_thread(run: Callable[[], Coroutine[Any, Any, None]], tick: Callable[[], None]) -> None:
    """Drive the coroutine on another thread; whatever `tick` or Ctrl-C raises here cancels it first."""
    loop = asyncio.new_event_loop()
    task = loop.create_task(run())
    try:
        with ThreadPoolExecutor(1) as pool:
            running = pool.submit(loop.run_until_complete, task)
            try:
                while wait([running], _TICK_S).not_done:
                    tick()
            except BaseException:
                loop.call_soon_threadsafe(task.cancel)
                wait([running])
                raise
            running.result()
    finally:
        loop.close()


async def _end_kernel(manager: Any, client: Any) -> None:
    """End the kernel, and all that it started: on POSIX it leads a process group of its own."""
    group = getattr(manager.provisioner, "pgid", None)
    if group and os.name == "posix":
        with suppress(ProcessLookupError):
            os.killpg(group, signal.SIGKILL)
    if client is not None:
        client.stop_channels()
    if manager.has_kernel:
        await manager.shutdown_kernel(now=True)
