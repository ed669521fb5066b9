"""run.py: installed once and completely, whatever happens meanwhile; then out of the way.

Each test has a copy of run.py in a folder of its own, so that its .venv is there too. `Pip` stands in for the
commands that install, and `Pytest` for pytest; signals, locks and exit codes are tried on real processes.
"""

import ast
import importlib.util
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from xml.etree import ElementTree

import psutil
import pytest

ROOT = Path(__file__).resolve().parents[2]
SOURCE = (ROOT / "run.py").read_text()
posix = pytest.mark.skipif(os.name != "posix", reason="process groups and shell scripts are POSIX's")


@pytest.fixture
def kit(tmp_path, monkeypatch):
    for name in ("run.py", "pyproject.toml", "constraints.txt"):
        shutil.copy(ROOT / name, tmp_path)
    for name in ("PIP_NO_INDEX", "PIP_FIND_LINKS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(sys, "platform", "linux")
    spec = importlib.util.spec_from_file_location("run_copy", tmp_path / "run.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class Pip:
    """Stands in for venv and pip: notes commands and stamps; fails, or is interrupted, at the word `at`."""

    def __init__(self, kit, at=None, how=1):
        kit.venv, self.kit, self.at, self.how = self, kit, at, how
        self.commands, self.stamps = [], []

    def __call__(self, command, cwd=None, output=None, **environment):
        words = [str(part) for part in command]
        self.commands.append(" ".join(words))
        self.stamps.append(self.kit.STAMP.exists() and self.kit.STAMP.read_text())
        if self.at in words and isinstance(self.how, BaseException):
            raise self.how
        return self.how if self.at in words else 0

    def create(self, folder, symlinks):
        self(["venv", folder])
        self.kit.PYTHON.parent.mkdir(parents=True)
        self.kit.PYTHON.touch()


def installed(kit):
    """Write what a complete installation leaves: a Python and the stamp."""
    kit.setup(Pip(kit), lambda: True)


def script(path, text):
    path.write_text("#!/bin/sh\n" + text)
    path.chmod(0o755)


def start(kit, *arguments):
    """Start run.py as from a terminal, where signals are heard; pytest-xdist's workers and nohup are deaf to some."""
    command = [sys.executable, kit.ROOT / "run.py", *arguments]

    def listen():
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, signal.SIG_DFL)

    hear = None if os.name == "nt" else listen
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, preexec_fn=hear
    )


def wait_for(condition, seconds=10.0):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.02)


def alive(pid):
    return psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE


# An old Python


def test_an_old_python_is_told_so_in_one_line(tmp_path):
    code = "import sys; sys.version_info = (3, 6, 15); exec(compile(open('run.py').read(), 'run.py', 'exec'))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stderr == "labkit needs Python 3.11 or newer, not 3.6. Try: python3.11 run.py\n"


def test_an_old_python_can_read_the_file():
    tree = ast.parse(SOURCE, feature_version=(3, 7))
    nodes = list(ast.walk(tree))
    functions = [node for node in nodes if isinstance(node, ast.FunctionDef | ast.Lambda)]
    assert SOURCE.isascii()
    assert not [
        node
        for node in nodes
        if isinstance(node, ast.JoinedStr | ast.AnnAssign | ast.NamedExpr | ast.Starred)
    ]
    assert not [node for node in functions if node.args.kwonlyargs or node.args.posonlyargs]
    assert not [node for node in nodes if isinstance(node, ast.arg) and node.annotation]
    assert not [node for node in functions if getattr(node, "returns", None)]


# Installing


def test_the_first_start_makes_a_venv_then_torch_alone_then_the_rest(kit):
    pip = Pip(kit)
    kit.setup(pip, lambda: True)
    venv, ensurepip, torch, rest = pip.commands
    assert venv == f"venv {kit.VENV}" and ensurepip == f"{kit.PYTHON} -Im ensurepip --default-pip"
    assert torch.endswith(f"--no-deps torch --index-url {kit.CPU_INDEX}")
    assert rest.endswith(f"-e {kit.ROOT}[test,openvino]") and "--index-url" not in rest
    assert all(f"-c {kit.ROOT / 'constraints.txt'}" in command for command in (torch, rest))


def test_the_first_start_says_beforehand_what_it_will_take(kit, capsys):
    with pytest.raises(SystemExit):
        kit.setup(Pip(kit, at="ensurepip"), lambda: True)
    assert "500 MB to download, 190 of them PyTorch" in capsys.readouterr().err


def test_the_stamp_is_written_last_and_a_second_start_runs_nothing(kit):
    pip = Pip(kit)
    kit.setup(pip, lambda: True)
    assert set(pip.stamps) == {"half built\n"}
    assert kit.is_ready()
    kit.setup(second := Pip(kit), lambda: True)
    assert second.commands == []


@pytest.mark.parametrize("how", [1, KeyboardInterrupt()], ids=["fails", "interrupted"])
@pytest.mark.parametrize("at", ["ensurepip", "torch", "-e"])
def test_what_was_left_half_built_is_made_again_from_empty(kit, at, how):
    with pytest.raises((SystemExit, KeyboardInterrupt)):
        kit.setup(Pip(kit, at, how), lambda: True)
    (kit.VENV / "lib").mkdir(exist_ok=True)
    (kit.VENV / "lib" / "torn.py").touch()
    pip = Pip(kit)
    kit.setup(pip, lambda: True)
    assert len(pip.commands) == 4 and kit.is_ready()
    assert not (kit.VENV / "lib").exists()


def test_a_venv_whose_python_has_gone_is_made_again(kit):
    installed(kit)
    shutil.rmtree(kit.PYTHON.parent)
    assert not kit.is_ready()
    installed(kit)
    assert kit.is_ready()


def test_a_venv_of_another_python_is_made_again_from_empty(kit):
    installed(kit)
    kit.STAMP.write_text("Python 3.10.1 in '/elsewhere'\n0123\n")
    pip = Pip(kit)
    kit.setup(pip, lambda: True)
    assert pip.commands[0].startswith("venv")


def test_a_changed_constraint_is_brought_in_without_starting_over(kit):
    installed(kit)
    with open(kit.ROOT / "constraints.txt", "a") as constraints:
        constraints.write("another==1.0\n")
    pip = Pip(kit)
    kit.setup(pip, lambda: True)
    assert len(pip.commands) == 2 and kit.is_ready()


def test_a_venv_of_the_user_s_own_is_added_to_and_never_emptied(kit):
    kit.PYTHON.parent.mkdir(parents=True)
    kit.PYTHON.touch()
    with pytest.raises(SystemExit):
        kit.setup(Pip(kit, at="torch"), lambda: True)
    (kit.VENV / "mine").touch()
    installed(kit)
    assert kit.is_ready() and (kit.VENV / "mine").exists()


def test_when_pip_fails_one_line_says_what_to_try(kit):
    with pytest.raises(SystemExit) as error:
        kit.setup(Pip(kit, at="-e"), lambda: True)
    message = error.value.code
    assert "\n" not in message and "HTTPS_PROXY" in message and "constraints.txt" in message
    assert "PIP_NO_INDEX=1" in (ROOT / "constraints.txt").read_text()


# Where torch comes from


def test_an_index_that_does_not_answer_is_not_used_and_the_cost_is_said(kit, capsys):
    pip = Pip(kit)
    kit.setup(pip, lambda: False)
    assert not [command for command in pip.commands if "--index-url" in command]
    assert "several GB of CUDA" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["PIP_NO_INDEX", "PIP_FIND_LINKS"])
def test_with_a_folder_of_wheels_no_index_is_asked(kit, monkeypatch, name):
    monkeypatch.setenv(name, "1")
    assert kit.torch_source(lambda: pytest.fail("asked")) == []


@pytest.mark.parametrize("system", ["darwin", "win32"])
def test_where_ordinary_wheels_are_for_the_cpu_no_index_is_asked(kit, monkeypatch, system):
    monkeypatch.setattr(sys, "platform", system)
    assert kit.torch_source(lambda: pytest.fail("asked")) == []


def test_an_index_that_takes_the_call_and_says_nothing_is_given_up_in_time(kit):
    with socket.create_server(("127.0.0.1", 0)) as silent:
        begun = time.monotonic()
        assert not kit.index_answers(f"http://127.0.0.1:{silent.getsockname()[1]}/", seconds=0.3)
        assert time.monotonic() - begun < 2.0


def test_an_index_that_is_there_answers(kit, tmp_path):
    assert kit.index_answers((tmp_path / "run.py").as_uri(), seconds=30)
    assert not kit.index_answers((tmp_path / "missing").as_uri())


# Two at once, and processes that are killed

DRIVER = """
import run
def install(command, output=None):
    with open("commands", "a") as file:
        file.write(str(command[-1]) + "\\n")
    run.PYTHON.parent.mkdir(parents=True, exist_ok=True)
    run.PYTHON.touch()
    return run.run(["sh", "-c", "touch here; while [ ! -e go ]; do sleep 0.05; done"])
run.venv.create = lambda folder, **options: install([folder])
run.setup(install, lambda: False)
"""


def drive(kit):
    return subprocess.Popen([sys.executable, "-c", DRIVER], cwd=kit.ROOT, stderr=subprocess.PIPE, text=True)


def is_locked(kit):
    import fcntl

    with open(kit.VENV / "labkit.lock", "a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


@posix
def test_of_two_that_start_at_once_one_installs_and_the_other_waits(kit):
    first = drive(kit)
    wait_for((kit.ROOT / "here").exists)
    second = drive(kit)
    assert second.stderr.readline() == "Another run.py is installing here: waiting for it.\n"
    (kit.ROOT / "go").touch()
    for process in (first, second):
        process.communicate(timeout=30)
        assert process.returncode == 0
    assert len((kit.ROOT / "commands").read_text().splitlines()) == 4
    assert kit.is_ready()


@posix
def test_the_lock_of_one_that_is_killed_lasts_until_its_pip_has_ended(kit):
    killed = drive(kit)
    wait_for((kit.ROOT / "here").exists)
    killed.kill()
    killed.wait()
    assert is_locked(kit)
    (kit.ROOT / "go").touch()
    wait_for(lambda: not is_locked(kit))
    installed(kit)
    assert kit.is_ready()


# Starting


@pytest.mark.parametrize("arguments", [[], ["tset"], ["--all"], ["setup", "extra"]], ids=str)
def test_wrong_usage_shows_the_usage_and_exits_2_before_anything_is_made(kit, arguments):
    process = start(kit, *arguments)
    out, err = process.communicate(timeout=10)
    assert process.returncode == 2 and out == ""
    assert "python3 run.py demo [ARGS]" in err and "Traceback" not in err
    assert not kit.VENV.exists()


def test_help_is_on_stdout(kit):
    process = start(kit, "--help")
    out, err = process.communicate(timeout=10)
    assert (process.returncode, err) == (0, "") and "python3 run.py setup" in out


@posix
@pytest.mark.parametrize("command", ["demo", "lab"])
def test_labkit_gets_the_arguments_and_gives_the_exit_code(kit, command):
    installed(kit)
    script(kit.LABKIT, 'for word in "$@"; do echo "<$word>"; done; exit 7')
    process = start(kit, command, "--out", "a b")
    assert process.communicate(timeout=10) == (f"<{command}>\n<--out>\n<a b>\n", "")
    assert process.returncode == 7


@posix
@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)]
)
def test_told_to_stop_it_leaves_no_child_and_no_traceback(kit, number, code):
    installed(kit)
    (kit.ROOT / "tests").mkdir()
    script(
        kit.PYTHON, f"cd {kit.ROOT}; sleep 60 & echo $! $$ > new; mv new pids; wait"
    )  # & makes it deaf to Ctrl-C
    process = start(kit, "test")
    wait_for((kit.ROOT / "pids").exists)
    pids = [int(pid) for pid in (kit.ROOT / "pids").read_text().split()]
    assert all(alive(pid) for pid in pids)
    process.send_signal(number)
    _, err = process.communicate(timeout=10)
    assert process.returncode == code and "Traceback" not in err
    wait_for(lambda: not any(alive(pid) for pid in pids), seconds=3)


# Testing


class Pytest:
    """Stands in for pytest: per folder an exit code and (tests, failures, errors, skipped), or no report."""

    def __init__(self, kit, **outcomes):
        for folder in ("tests/browser", "notebooks"):
            (kit.ROOT / folder).mkdir(parents=True, exist_ok=True)
        kit.VENV.mkdir(exist_ok=True)
        self.outcomes, self.calls = outcomes, {}

    def __call__(self, command, cwd=None, output=None, **environment):
        words = [str(word) for word in command]
        folder = words[3].split("/")[-1]
        self.calls[folder] = " ".join(words[4:]), environment
        code, numbers = self.outcomes.get(folder, (0, (2, 0, 0, 0)))
        if numbers:
            suite = ElementTree.SubElement(report := ElementTree.Element("testsuites"), "testsuite")
            suite.attrib.update(
                zip(("tests", "failures", "errors", "skipped"), map(str, numbers), strict=True)
            )
            ElementTree.ElementTree(report).write(words[words.index("--junitxml") + 1])
        return code


def last_line(capsys):
    return capsys.readouterr().out.splitlines()[-1]


def test_the_three_runs_are_summed(kit, capsys):
    fake = Pytest(kit, tests=(0, (10, 0, 0, 3)), notebooks=(0, (5, 0, 0, 0)), browser=(0, (1, 0, 0, 0)))
    assert kit.test([], fake) == 0
    assert last_line(capsys) == "13 passed, 0 failed, 3 skipped"


def test_a_failure_is_told_by_the_exit_code_and_the_rest_runs_all_the_same(kit, capsys):
    fake = Pytest(kit, tests=(1, (10, 1, 1, 0)))
    assert kit.test([], fake) == 1
    assert list(fake.calls) == ["tests", "notebooks", "browser"]
    assert last_line(capsys) == "12 passed, 2 failed, 0 skipped"


@pytest.mark.parametrize(
    "outcome", [(5, (0, 0, 0, 0)), (3, None), (-9, None)], ids=["no tests", "internal error", "killed"]
)
def test_a_run_that_tested_nothing_is_a_failure(kit, capsys, outcome):
    assert kit.test([], Pytest(kit, notebooks=outcome)) == 1
    assert last_line(capsys) == "4 passed, 1 failed, 0 skipped"


def test_an_old_report_is_not_taken_for_a_new_one(kit, capsys):
    fake = Pytest(kit, tests=(0, (7, 0, 0, 0)), notebooks=(1, None), browser=(0, (0, 0, 0, 0)))
    kit.test([], fake)
    assert last_line(capsys) == "7 passed, 1 failed, 0 skipped"


def test_a_choice_may_leave_a_folder_without_tests_but_not_all(kit, capsys):
    none = (5, (0, 0, 0, 0))
    assert kit.test(["-k", "huffman"], Pytest(kit, notebooks=none, browser=none)) == 0
    assert last_line(capsys) == "2 passed, 0 failed, 0 skipped"
    assert kit.test(["-k", "hufman"], Pytest(kit, tests=none, notebooks=none, browser=none)) == 1


def test_a_missing_folder_is_left_out_with_words(kit, capsys):
    fake = Pytest(kit)
    shutil.rmtree(kit.ROOT / "notebooks")
    assert kit.test([], fake) == 0
    assert "no notebooks/ here" in capsys.readouterr().err


def test_extras_wait_for_all_and_the_other_arguments_are_pytest_s(kit):
    few, all_of_them = Pytest(kit), Pytest(kit)
    kit.test(["-x"], few)
    kit.test(["--all", "-x"], all_of_them)
    for stage in ("tests", "browser"):
        assert "-m not extra" in few.calls[stage][0] and "-m not extra" not in all_of_them.calls[stage][0]
    assert all(
        options.endswith(" -x") and "--all" not in options for options, _ in all_of_them.calls.values()
    )


def test_lessons_run_headless_in_the_ci_profile_and_workers_with_one_thread(kit):
    fake = Pytest(kit)
    kit.test([], fake)
    headless = {"LABKIT_PROFILE": "ci", "LABKIT_HEADLESS": "1", "OMP_NUM_THREADS": "1", "LABKIT_CPUS": "1"}
    assert fake.calls["notebooks"][1] == headless
    assert fake.calls["tests"][1] == {"OMP_NUM_THREADS": "1", "LABKIT_CPUS": "1"}
    assert "--nbval-lax" in fake.calls["notebooks"][0] and "-n" not in fake.calls["browser"][0].split()


def test_a_report_of_pytest_s_own_is_read_right(kit, tmp_path):
    (tmp_path / "test_five.py").write_text(
        "import pytest\n"
        "def test_passes(): pass\n"
        "def test_fails(): assert 0\n"
        "def test_skipped(): pytest.skip('why')\n"
        "@pytest.fixture\n"
        "def broken(): raise OSError\n"
        "def test_error(broken): pass\n"
        "@pytest.mark.xfail(strict=True)\n"
        "def test_known(): assert 0\n"
    )
    report = tmp_path / "report.xml"
    command = [sys.executable, "-m", "pytest", "-q", "-c", os.devnull, tmp_path, "--junitxml", report]
    subprocess.run(command, capture_output=True, env={**os.environ, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"})
    assert kit.count(report) == (1, 2, 2)
