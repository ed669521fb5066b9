"""Install labkit beside this file, then start it. Nothing is needed but Python 3.11 or newer.

    python3 run.py demo [ARGS]          a model made smaller and faster, measured on this machine
    python3 run.py lab [ARGS]           the lessons, in JupyterLab
    python3 run.py test [--all] [ARGS]  tests and lessons; --all: slow ones, extras too (2.5 GB more); pytest gets ARGS
    python3 run.py setup                install, and stop there

The first start fills .venv, a later one goes straight to work. Three small ideas make that safe:
- The stamp comes last: `.venv/labkit-stamp` names what was installed only once all of it is in.
- The lock is the operating system's. It goes when its holder ends, however it ends: none is ever stale.
- A child gets a process group of its own: one Ctrl-C ends pip or pytest and all that they started.
No network? It installs from a folder of wheels too: constraints.txt tells how to fill one.
"""

import sys

if sys.version_info < (3, 11):  # an old Python must read this file to say so: hence %, and no annotations
    sys.exit("labkit needs Python 3.11 or newer, not %d.%d. Try: python3.11 run.py" % sys.version_info[:2])

import contextlib
import hashlib
import os
import shutil
import signal
import subprocess
import time
import venv
from pathlib import Path
from xml.etree import ElementTree

POSIX = os.name == "posix"
if POSIX:
    import fcntl
else:
    import msvcrt
ROOT = Path(__file__).resolve().parent
VENV = ROOT / ".venv"
STAMP = VENV / "labkit-stamp"
EXTRAS = ROOT / ".venv-extras"
LABKIT = VENV / ("bin/labkit" if POSIX else "Scripts/labkit.exe")
CPU_INDEX = "https://download.pytorch.org/whl/cpu"


def interpreter(folder):
    """An environment's Python."""
    return folder / ("bin/python" if POSIX else "Scripts/python.exe")


PYTHON = interpreter(VENV)


def say(text):
    """Tell the person; on stderr, because stdout belongs to the command (`demo --json`)."""
    sys.stderr.write(text + "\n")


def run(command, cwd=None, output=None, **environment):
    """Run `command` to its end and return its exit code; told to stop meanwhile, stop it and its children."""
    command, environment = [str(part) for part in command], dict(os.environ, **environment)
    options = {"cwd": cwd, "stdout": output, "stderr": output, "close_fds": False, "start_new_session": True}
    listen(False)  # one that came between the start of the child and `try` would leave the child behind
    child = subprocess.Popen(command, env=environment, preexec_fn=listen if POSIX else None, **options)
    try:
        listen()
        return child.wait()
    except BaseException:  # Ctrl-C, or the SystemExit of a signal
        stop(child)
        raise


def listen(now=True):
    """Hear Ctrl-C and the other signals that end a process, or let them wait until this is called again."""
    if POSIX:
        how = signal.SIG_UNBLOCK if now else signal.SIG_BLOCK
        signal.pthread_sigmask(how, {signal.SIGINT, signal.SIGTERM, signal.SIGHUP})


def stop(child):
    """Ask the child's group to stop, as Ctrl-C does; after two seconds, or at a second Ctrl-C, end it."""
    try:
        with contextlib.suppress(OSError, subprocess.TimeoutExpired):
            if POSIX:  # on Windows the console has told the child already
                os.killpg(child.pid, signal.SIGINT)
            child.wait(2)
    finally:
        with contextlib.suppress(OSError):
            os.killpg(child.pid, signal.SIGKILL) if POSIX else child.kill()
        child.wait()


def stamp():
    """The stamp of a complete installation: for which Python, where, and a digest of what was asked for."""
    asked = (ROOT / "pyproject.toml").read_bytes() + (ROOT / "constraints.txt").read_bytes()
    return "Python %s in %a\n%s\n" % (sys.version.split()[0], str(ROOT), hashlib.sha256(asked).hexdigest())


def is_ready():
    """Whether .venv holds all that pyproject.toml and constraints.txt ask for."""
    return PYTHON.exists() and STAMP.exists() and STAMP.read_text() == stamp()


def setup(run=run, probe=None, extras=False):
    """Make .venv complete, and .venv-extras if wanted, unless they are; two that start at once take turns."""
    if not is_ready() or (extras and not has_extras()):
        VENV.mkdir(exist_ok=True)
        with open(VENV / "labkit.lock", "a") as file:
            lock(file)
            os.set_inheritable(file.fileno(), True)  # pip holds it too, and on, should this process be killed
            if not is_ready():  # another may have finished it while this one waited
                install(run, probe or index_answers)
            if extras and not has_extras():
                extend(run)


def lock(file):
    """Hold `file` until it is closed or this process ends, having waited for whoever holds it now."""
    waited = False
    while True:
        try:
            if POSIX:
                return fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
        except (BlockingIOError, PermissionError):
            if not waited:
                say("Another run.py is installing here: waiting for it.")
            waited = True
            time.sleep(0.2)


def install(run, probe):
    """Fill .venv, from empty if an earlier start left it half built or it is another Python's."""
    finished = stamp()
    before = STAMP.read_text() if STAMP.exists() else None
    if before and before.startswith(finished.splitlines()[0]):
        say("Bringing .venv up to date with pyproject.toml and constraints.txt.")
    else:
        say("Installing labkit into %s, once: about 500 MB to download, 190 of them PyTorch," % VENV)
        say("2.1 GB on disk, two to five minutes. What pip has fetched before it does not fetch again.")
        if before is not None:
            say("What was there is half built, or made for another Python or folder: starting from empty.")
            empty(VENV)
    if before is not None or not PYTHON.exists():  # a .venv of the user's own is added to, never emptied
        STAMP.write_text("half built\n")
    if not PYTHON.exists():
        venv.create(VENV, symlinks=POSIX)
        if run([PYTHON, "-Im", "ensurepip", "--default-pip"], output=subprocess.DEVNULL) != 0:
            sys.exit("run.py: this Python lacks ensurepip. On Debian or Ubuntu: apt-get install python3-venv")
    pip_install(run, ["--no-deps", "torch"] + torch_source(probe))
    pip_install(run, ["-e", "%s[test,openvino]" % ROOT])
    STAMP.write_text(finished)


def has_extras():
    """Whether .venv-extras holds what this pyproject.toml and constraints.txt ask for."""
    finished = EXTRAS / STAMP.name
    return finished.exists() and finished.read_text() == stamp()


def extend(run):
    """Fill .venv-extras: the heavy extras alone, laid over .venv, so that .venv stays what most people have."""
    say("Installing TensorFlow and MindSpore into %s, for their tests: 2.5 GB on disk." % EXTRAS)
    shutil.rmtree(EXTRAS, ignore_errors=True)
    venv.create(EXTRAS, symlinks=POSIX)
    (packages(EXTRAS) / "over.pth").write_text("%s\n%s\n" % (packages(VENV), ROOT))
    inside = ["--python", interpreter(EXTRAS)]
    pip_install(run, ["--quiet", "labkit[tensorflow,mindspore]"], inside)
    (EXTRAS / STAMP.name).write_text(stamp())


def packages(folder):
    """Where an environment keeps its packages."""
    version = "python%d.%d" % sys.version_info[:2]
    return folder / ("lib/%s/site-packages" % version if POSIX else "Lib/site-packages")


def empty(folder):
    """Remove all but the stamp and the lock: cut short, what is left still says that it is half built."""
    for path in folder.iterdir():
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        elif path != STAMP and path.suffix != ".lock":
            path.unlink()


def pip_install(run, arguments, inside=()):
    """`pip install ARGUMENTS` inside .venv, in the pinned versions; if it fails, end with what to try."""
    command = [PYTHON, "-m", "pip"] + list(inside) + ["install", "--no-input", "-c", ROOT / "constraints.txt"]
    if run(command + arguments, output=sys.stderr) != 0:
        sys.exit("run.py: pip failed (see above). Start again, set HTTPS_PROXY; offline, see constraints.txt")


def torch_source(probe):
    """Pip's arguments that say where PyTorch comes from: on Linux, its own index, for the CPU build.

    The ordinary one has the CUDA build, gigabytes larger. Asked beforehand: pip waits long on a dead index.
    """
    if sys.platform != "linux" or os.environ.get("PIP_NO_INDEX") or os.environ.get("PIP_FIND_LINKS"):
        return []
    if probe():
        return ["--index-url", CPU_INDEX]
    say("PyTorch's own index does not answer. Going on with pip's ordinary one, where PyTorch for Linux may")
    say("bring several GB of CUDA libraries: press Ctrl-C if that is too much, and try again later.")
    return []


def index_answers(url=CPU_INDEX + "/torch/", seconds=3.0):
    """Whether the index answers in time; asked by a process, as looking up a name knows no time limit."""
    ask = [sys.executable, "-c", "import sys, urllib.request; urllib.request.urlopen(sys.argv[1])", url]
    with contextlib.suppress(subprocess.TimeoutExpired):
        return subprocess.run(ask, stderr=subprocess.DEVNULL, timeout=seconds).returncode == 0
    return False


def test(arguments, run=run):
    """Run pytest over tests, lessons and browser, each of them always; 0 if some passed and none failed."""
    every = "--all" in arguments
    which = [] if every else ["-m", "not extra"]
    chosen = [argument for argument in arguments if argument != "--all"]
    two = ["-n", "2", "--dist", "loadscope"]
    nbval = ["--nbval-lax", "--nbval-current-env", "--nbval-cell-timeout=120"]
    nbval += ["--nbval-sanitize-with", "tests/notebooks/sanitize.cfg"]
    one_thread = {
        "OMP_NUM_THREADS": "1",
        "LABKIT_CPUS": "1",
    }  # for each of two workers: more crowd one another
    stages = (
        ("tests", ["--ignore=tests/browser", "--ignore=tests/extra"] + two + which, one_thread),
        ("notebooks", nbval + two, dict(one_thread, LABKIT_PROFILE="ci", LABKIT_HEADLESS="1")),
        ("tests/browser", which, {"LABKIT_PROFILE": "ci"}),
    )
    if every:  # where TensorFlow and MindSpore are, and the contracts again, which hold for what they bring
        stages += (("tests/extra", ["tests/contract", "tests/unit/test_packaging.py"] + two, one_thread),)
    total, report = [0, 0, 0], VENV / "labkit-report.xml"
    for folder, options, environment in stages:
        if not (ROOT / folder).is_dir():
            say("\nThere is no %s/ here: left out." % folder)
            continue
        report.unlink(missing_ok=True)
        python = interpreter(EXTRAS) if folder == "tests/extra" else PYTHON
        command = [python, "-m", "pytest", folder, "--junitxml", report] + options + chosen
        code = run(command, cwd=ROOT, **environment)
        passed, failed, skipped = count(report)
        if code != 0 and failed == 0 and not (code == 5 and chosen):  # 5: no tests, as ARGS may want
            say("pytest ended with code %d in %s/: counted as a failure." % (code, folder))
            failed = 1
        total = [total[0] + passed, total[1] + failed, total[2] + skipped]
    sys.stdout.write("\n%d passed, %d failed, %d skipped\n" % tuple(total))
    return 0 if total[0] > 0 and total[1] == 0 else 1


def count(report):
    """(passed, failed, skipped) of a JUnit report; zeros where there is none that can be read."""
    try:
        suite = ElementTree.parse(report).find("testsuite")
    except (OSError, ElementTree.ParseError):
        return 0, 0, 0
    tests, failed, skipped = (int(suite.get(key)) for key in ("tests", "failures", "skipped"))
    failed += int(suite.get("errors"))
    return tests - failed - skipped, failed, skipped


def main(arguments, run=run, probe=None):
    """Do what the command line asks, and return the exit code."""
    command, rest = (arguments or [""])[0], arguments[1:]
    if command not in ("demo", "lab", "test", "setup") or (command == "setup" and rest):
        asked = command in ("-h", "--help")
        (sys.stdout if asked else sys.stderr).write(__doc__.split("\n\nThe first")[0] + "\n")
        return 0 if asked else 2
    setup(run, probe, extras=command == "test" and "--all" in rest)
    if command == "test":
        return test(rest, run)
    if command == "setup":
        say("labkit is installed in %s." % VENV)
        return 0
    if POSIX:  # turn into labkit: its signals and its exit code are then ours
        os.execv(LABKIT, [str(LABKIT), command] + rest)
    return subprocess.call([LABKIT, command] + rest)


if __name__ == "__main__":
    for number in (signal.SIGTERM, getattr(signal, "SIGHUP", signal.SIGTERM)):
        if signal.getsignal(number) == signal.SIG_DFL:  # under nohup it is not
            signal.signal(number, lambda number, frame: sys.exit(128 + number))
    try:
        sys.exit(main(sys.argv[1:]))
    except KeyboardInterrupt:
        sys.exit(130)
    except OSError as error:
        sys.exit("run.py: %s" % error)
