"""A real JupyterLab with a copy of a lesson, and a real browser that looks at it.

Under CI=true a missing browser is a failure; elsewhere the tests are skipped, with the reason.
LABKIT_SCREENSHOTS names a folder that takes what the browser saw.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NoReturn

import pytest

ROOT = Path(__file__).resolve().parents[2]
SERVER_STARTS_WITHIN_S = 90.0
BROWSERS = ("chromium", "chromium-browser", "google-chrome")
ARGUMENTS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
)
SETTINGS: dict[str, dict[str, Any]] = {
    "apputils-extension/notification": {"fetchNews": "false", "checkForUpdates": False},
    "notebook-extension/tracker": {"windowingMode": "none"},  # cells out of sight are there as well
}


def do_without(what: str) -> NoReturn:
    """Skip the test for want of `what`; in CI it must be there."""
    if os.environ.get("CI") == "true":
        pytest.fail(f"{what}: in CI the browser tests must run")
    pytest.skip(what)


@pytest.fixture(scope="session")
def browser() -> Iterator[Any]:
    """The system's Chromium, driven by playwright."""
    program = next(filter(None, map(shutil.which, BROWSERS)), None)
    if program is None:
        do_without(f"none of {', '.join(BROWSERS)} is installed")
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        do_without("playwright is not installed")
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=program, args=list(ARGUMENTS))
        yield chromium
        chromium.close()


@pytest.fixture
def page(browser: Any, screenshot: Callable[[Any, str], None]) -> Iterator[Any]:
    """A fresh page; what it showed last is kept too, for whoever wants to know why a test failed."""
    opened = browser.new_page(viewport={"width": 1500, "height": 1200})
    yield opened
    screenshot(opened, "last")
    opened.close()


@pytest.fixture
def screenshot() -> Callable[[Any, str], None]:
    """A function (page, name) that keeps what the page shows, where LABKIT_SCREENSHOTS says so."""
    folder = os.environ.get("LABKIT_SCREENSHOTS")

    def take(page: Any, name: str) -> None:
        if folder:
            page.screenshot(path=Path(folder) / f"{name}.png")

    return take


@pytest.fixture
def jupyter(tmp_path: Path) -> Iterator[Callable[[Path], str]]:
    """A function: notebook → the address of a JupyterLab that shows a copy of it, on this machine alone."""
    servers: list[subprocess.Popen[bytes]] = []

    def serve(notebook: Path) -> str:
        root = tmp_path / "root"
        root.mkdir()
        shutil.copy(notebook, root)
        port, token = _free_port(), secrets.token_hex(16)
        servers.append(_start(root, tmp_path / "home", port, token))
        _wait_for(f"http://127.0.0.1:{port}/api/status?token={token}", servers[-1])
        _start_kernel(f"http://127.0.0.1:{port}/api/sessions?token={token}", notebook.name)
        return f"http://127.0.0.1:{port}/lab/tree/{notebook.name}?token={token}"

    yield serve
    for server in servers:
        _stop(server)


def _start(root: Path, home: Path, port: int, token: str) -> subprocess.Popen[bytes]:
    for name, values in SETTINGS.items():
        file = home / "settings" / "@jupyterlab" / f"{name}.jupyterlab-settings"
        file.parent.mkdir(parents=True)
        file.write_text(json.dumps(values))
    options = {
        "ServerApp.ip": "127.0.0.1",
        "ServerApp.port": port,
        "ServerApp.port_retries": 0,
        "ServerApp.root_dir": root,
        "ServerApp.allow_root": True,
        "ServerApp.open_browser": False,
        "IdentityProvider.token": token,
        "LabApp.user_settings_dir": home / "settings",
        "LabApp.workspaces_dir": home / "workspaces",
    }
    environment = {name: value for name, value in os.environ.items() if name != "LABKIT_HEADLESS"}
    environment |= {
        "JUPYTER_CONFIG_DIR": str(home / "config"),
        "JUPYTER_RUNTIME_DIR": str(home / "runtime"),
        "IPYTHONDIR": str(home / "ipython"),
        "LABKIT_COURSE_DIR": str(home / "course"),
        "LABKIT_LOCK": str(home / "lock"),  # nobody waits for another test's measurements
        "PYTHONPATH": os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")])),
    }
    command = [sys.executable, "-m", "jupyterlab", *(f"--{name}={value}" for name, value in options.items())]
    with open(home / "jupyter.log", "wb") as log:
        return subprocess.Popen(
            command, env=environment, cwd=root, stdout=log, stderr=log, start_new_session=True
        )


def _wait_for(url: str, server: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + SERVER_STARTS_WITHIN_S
    while time.monotonic() < deadline and server.poll() is None:
        try:
            urllib.request.urlopen(url, timeout=5).close()
            return
        except (urllib.error.URLError, TimeoutError, ConnectionError):
            time.sleep(0.2)
    pytest.fail(f"JupyterLab did not start within {SERVER_STARTS_WITHIN_S} s")


def _start_kernel(url: str, path: str) -> None:
    """Start the notebook's kernel before its page opens: on a busy machine JupyterLab may start two, and hang."""
    session = {"path": path, "name": path, "type": "notebook", "kernel": {"name": "python3"}}
    request = urllib.request.Request(url, json.dumps(session).encode(), {"Content-Type": "application/json"})
    urllib.request.urlopen(request, timeout=60).close()


def _stop(server: subprocess.Popen[bytes]) -> None:
    """Ask it to end, and its kernels with it; whatever is left of its process group then is killed."""
    server.terminate()
    with contextlib.suppress(subprocess.TimeoutExpired):
        server.wait(15)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(server.pid, signal.SIGKILL)
    server.wait()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
