"""Install labkit beside this file, then start it. Nothing is needed but Python 3.11 or newer.

    python3 run.py demo [ARGS]          a model made smaller and faster, measured on this machine
    python3 run.py lab [ARGS]           the lessons, in JupyterLab
    python3 run.py test [--all] [ARGS]  tests, lessons, browser; --all adds the extras' tests; ARGS go to pytest
    python3 run.py setup                install, and stop there

The first start fills .venv, a later one goes straight to work. Three small ideas make that safe:
- The stamp comes last. `.venv/labkit-stamp` reads "half built" until everything is in, then names what was
  installed: a stamp that matches means a complete installation, and one that does not is put right.
- The lock is the operating system's. It goes when its holder ends, however it ends: none is ever stale.
- A child gets a process group of its own: one Ctrl-C ends pip or pytest and all that they started.

No network in the classroom? On a machine of the same kind that has one, fill a folder with wheels:
    pip download -d wheels --no-deps --index-url https://download.pytorch.org/whl/cpu torch==2.13.0
    pip download -d wheels --find-links wheels -c constraints.txt hatchling ".[test,openvino]"
then carry it over and start there with PIP_NO_INDEX=1 PIP_FIND_LINKS=wheels set.

An old Python must be able to read this file to say what it lacks: hence % formatting, and no annotations.
"""

import sys

if sys.version_info < (3, 11):
    sys.exit("labkit needs Python 3.11 or newer; this is %d.%d. Try: python3.11 run.py" % sys.version_info[:2])

import contextlib
import hashlib
import os
import shutil
import signal
import subprocess
import threading
import time
import urllib.request
from pathlib import Path

POSIX = os.name == "posix"
ROOT = Path(__file__).resolve().parent
VENV = ROOT / ".venv"
STAMP = VENV / "labkit-stamp"
PYTHON = VENV / ("bin/python" if POSIX else "Scripts/python.exe")
LABKIT = VENV / ("bin/labkit" if POSIX else "Scripts/labkit.exe")
CPU_INDEX = "https://download.pytorch.org/whl/cpu"


def say(text):
    """Tell the person; on stderr, because stdout belongs to the command (`demo --json`)."""
    sys.stderr.write(text + "\n")
    sys.stderr.flush()


def run(command, cwd=None, stdout=None, **environment):
    """Run `command` to its end and return its exit code; told to stop meanwhile, stop it and its children."""
    child = subprocess.Popen(
        [str(part) for part in command],
        cwd=cwd,
        env=dict(os.environ, **environment),
        stdin=subprocess.DEVNULL,
        stdout=stdout,
        start_new_session=True,
    )
    try:
        return child.wait()
    except BaseException:  # Ctrl-C, or the SystemExit of a signal
        stop(child)
        raise


def stop(child):
    """Ask the child's group to stop, as Ctrl-C does; after two seconds, or at a second Ctrl-C, end it."""
    try:
        if POSIX:  # on Windows the console has told the child already
            os.killpg(child.pid, signal.SIGINT)
        child.wait(2)
    except (OSError, subprocess.TimeoutExpired):
        pass
    finally:
        with contextlib.suppress(OSError):
            os.killpg(child.pid, signal.SIGKILL) if POSIX else child.kill()
        child.wait()


def stamp():
    """The stamp of a complete installation: for which Python, where, and a digest of what it was asked for."""
    asked = (ROOT / "pyproject.toml").read_bytes() + (ROOT / "constraints.txt").read_bytes()
    return "Python %s in %s\n%s\n" % (sys.version.split()[0], ROOT, hashlib.sha256(asked).hexdigest())


def is_ready():
    """Whether .venv holds all that pyproject.toml and constraints.txt ask for."""
    return PYTHON.exists() and STAMP.exists() and STAMP.read_text() == stamp()


def setup(run=run, probe=None):
    """Make .venv complete, unless it is already; two that start at once take turns."""
    if not is_ready():
        VENV.mkdir(exist_ok=True)
        with only_one():
            if not is_ready():  # another may have finished it while this one waited
                install(run, probe or index_answers)


def install(run, probe):
    """Fill .venv, from empty if an earlier start left it half built or it is another Python's."""
    finished = stamp()
    before = STAMP.read_text() if STAMP.exists() else None
    if before and before.startswith(finished.splitlines()[0]):
        say("Bringing .venv up to date with pyproject.toml and constraints.txt.")
    else:
        say("Installing labkit into %s, once: about 500 MB to download, 190 of them PyTorch," % VENV)
        say("2.2 GB on disk, two to five minutes. What pip has fetched before it does not fetch again.")
        if before is not None:
            say("What was there is half built, or made for another Python or folder: starting from empty.")
            empty(VENV)
    if before is not None or not PYTHON.exists():  # else the user's own .venv, which is added to, never emptied
        STAMP.write_text("half built\n")
    if not PYTHON.exists():
        base = getattr(sys, "_base_executable", sys.executable)  # inside a venv: the Python it was made from
        if run([base, "-m", "venv", VENV], stdout=sys.stderr) != 0:
            sys.exit("run.py: Python could not make .venv. On Debian and Ubuntu: apt-get install python3-venv")
    pins = (ROOT / "constraints.txt").read_text().split()
    torch = [pin for pin in pins if pin.startswith("torch==")]
    pip_install(run, ["--no-deps"] + torch + torch_source(probe))
    pip_install(run, ["-c", ROOT / "constraints.txt", "-e", "%s[test,openvino]" % ROOT])
    STAMP.write_text(finished)


def empty(folder):
    """Remove all but the stamp and the lock: cut short, what is left still says that it is half built."""
    for path in folder.iterdir():
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        elif path != STAMP and path.suffix != ".lock":
            path.unlink()


def pip_install(run, arguments):
    """`pip install ARGUMENTS` inside .venv; where it fails, end with what to try next."""
    command = [PYTHON, "-m", "pip", "install", "--no-input", "--disable-pip-version-check"]
    if run(command + arguments, stdout=sys.stderr) != 0:
        sys.exit(
            "run.py: pip could not install, for the reason above. Start again to go on; behind a proxy set"
            " HTTPS_PROXY; with no network set PIP_NO_INDEX=1 and PIP_FIND_LINKS to a folder of wheels."
        )


def torch_source(probe):
    """Pip's arguments that say where PyTorch comes from.

    For Linux the ordinary index has the build for CUDA, with gigabytes of libraries; PyTorch's own has one for
    the CPU. It is used for this one package, and asked beforehand: pip would wait long on it, were it down.
    """
    wheels = os.environ.get("PIP_NO_INDEX") or os.environ.get("PIP_FIND_LINKS")
    if wheels or not sys.platform.startswith("linux"):
        return []
    if probe():
        return ["--index-url", CPU_INDEX]
    say("PyTorch's own index does not answer. Going on with pip's ordinary one, where PyTorch for Linux may")
    say("bring several GB of CUDA libraries: press Ctrl-C if that is too much, and try again later.")
    return []


def index_answers(url=CPU_INDEX + "/torch/", seconds=3.0):
    """Whether the index answers in time; asked on a thread, as looking up a name knows no time limit."""
    answers = []

    def ask():
        with contextlib.suppress(OSError):
            request = urllib.request.Request(url, method="HEAD")
            urllib.request.urlopen(request, timeout=seconds).close()
            answers.append(url)

    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    thread.join(seconds)
    return bool(answers)


@contextlib.contextmanager
def only_one():
    """Hold the installation's lock, having waited for whoever has it."""
    with open(VENV / "labkit.lock", "a") as file:
        if not try_lock(file):
            say("Another run.py is installing here: waiting for it.")
            while not try_lock(file):
                time.sleep(0.2)
        yield


def try_lock(file):
    """Lock `file` until it is closed or this process ends; False if another process holds it."""
    try:
        if POSIX:
            import fcntl

            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        else:
            import msvcrt

            msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
    except (BlockingIOError, PermissionError):
        return False
    return True


def test(arguments, run=run):
    """Run pytest over the tests, the lessons and the browser, all three always; 0 if nothing failed, else 1."""
    chosen = [argument for argument in arguments if argument != "--all"]
    extras = [] if "--all" in arguments else ["-m", "not extra"]
    two = ["-n", "2", "--dist", "loadscope"]
    nbval = ["--nbval-lax", "--nbval-current-env", "--nbval-cell-timeout=120"]
    nbval += ["--nbval-sanitize-with", "tests/notebooks/sanitize.cfg"]
    one_thread = {"OMP_NUM_THREADS": "1"}  # each of the two workers, or they crowd one another
    stages = [
        ("tests", ["--ignore=tests/browser"] + two + extras, one_thread),
        ("notebooks", nbval + two, dict(one_thread, LABKIT_PROFILE="ci", LABKIT_HEADLESS="1")),
        ("tests/browser", [], {"LABKIT_PROFILE": "ci"}),
    ]
    total = [0, 0, 0]
    for folder, options, environment in stages:
        if not (ROOT / folder).is_dir():
            say("\nThere is no %s/ here: left out." % folder)
            continue
        say("\n%s/" % folder)
        report = VENV / "labkit-report.xml"
        report.unlink(missing_ok=True)
        command = [PYTHON, "-m", "pytest", folder, "--junitxml", report] + options + chosen
        code = run(command, cwd=ROOT, **environment)
        passed, failed, skipped = count(report)
        if code == 5 and chosen:  # pytest's word for "no tests": ARGS such as -k may well leave a folder without
            code = 0
        if code != 0 and failed == 0:
            say("pytest ended with code %d in %s/: counted as a failure." % (code, folder))
            failed = 1
        total = [total[0] + passed, total[1] + failed, total[2] + skipped]
    sys.stdout.write("\n%d passed, %d failed, %d skipped\n" % tuple(total))
    return 0 if total[0] > 0 and total[1] == 0 else 1


def count(report):
    """(passed, failed, skipped) of a JUnit report; zeros where there is none that can be read."""
    from xml.etree import ElementTree

    try:
        suites = list(ElementTree.parse(report).iter("testsuite"))
    except (OSError, ElementTree.ParseError):
        return 0, 0, 0
    keys = ("tests", "failures", "errors", "skipped")
    tests, failures, errors, skipped = (sum(int(suite.get(key)) for suite in suites) for key in keys)
    return max(tests - failures - errors - skipped, 0), failures + errors, skipped


def become(command):
    """Turn into `command`, so that its signals and exit code are ours; on Windows, wait for it instead."""
    if POSIX:
        os.execv(command[0], command)
    return subprocess.call(command)


def main(arguments, run=run, probe=None, become=become):
    """Do what the command line asks, and return the exit code."""
    usage = __doc__.split("\n\nThe first")[0]
    command, rest = (arguments or [""])[0], arguments[1:]
    if command in ("-h", "--help"):
        sys.stdout.write(usage + "\n")
        return 0
    if command not in ("demo", "lab", "test", "setup") or (command == "setup" and rest):
        say(usage)
        return 2
    setup(run, probe)
    if command == "test":
        return test(rest, run)
    if command == "setup":
        say("labkit is installed in %s." % VENV)
        return 0
    return become([str(LABKIT), command] + rest)


if __name__ == "__main__":
    for number in (signal.SIGTERM, getattr(signal, "SIGHUP", signal.SIGTERM)):
        if signal.getsignal(number) == signal.SIG_DFL:
            signal.signal(number, lambda number, frame: sys.exit(128 + number))
    try:
        sys.exit(main(sys.argv[1:]))
    except KeyboardInterrupt:
        say("Stopped.")
        sys.exit(130)
    except OSError as error:
        sys.exit("run.py: %s" % error)
