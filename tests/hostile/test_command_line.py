"""Whatever is typed: exit 1 with one line of ours (2 for wrong usage), no traceback, no half file, within 2 s."""

from __future__ import annotations

import json
import os
import pickle
import signal
import subprocess
import sys
import time

import numpy as np
import psutil
import pytest

import labkit.cli

LABKIT = [sys.executable, "-c", "from labkit.cli import main; main()"]


@pytest.fixture
def run(run):
    """Run one command in this process; returns (exit status, stdout, stderr, seconds)."""

    def call(*words):
        started = time.monotonic()
        status, out, err = run(*words)
        return status, out, err, time.monotonic() - started

    return call


@pytest.fixture
def files(tmp_path, monkeypatch):
    """Bad files of every kind, in the current folder."""
    (tmp_path / "empty.onnx").write_bytes(b"")
    (tmp_path / "weights.pt").write_bytes(pickle.dumps([1.0]))
    (tmp_path / "random.onnx").write_bytes(np.random.RandomState(0).bytes(5000))
    (tmp_path / "text.npz").write_text("hello")
    (tmp_path / "folder").mkdir()
    (tmp_path / "bad.toml").write_text("objective = 3")
    (tmp_path / "unknown.toml").write_text("[limits]\nmax_acuracy_drop_pp = 1")
    (tmp_path / "text_limit.toml").write_text("[limits]\nmax_size_bytes = 'small'")
    (tmp_path / "nan.toml").write_text("[limits]\nmax_size_bytes = nan")
    (tmp_path / "not.toml").write_text("[[")
    (tmp_path / "deep.toml").write_text("title = " + "[" * 50_000)
    (tmp_path / "vast.toml").write_text("batch_size = 1" + "0" * 400)
    (tmp_path / "words.toml").write_text("[parameters]\nMODEL = 3")
    np.savez(tmp_path / "one_class.npz", x=np.zeros((40, 8, 8), np.uint8), y=np.zeros(40, int))
    np.savez(tmp_path / "small.npz", x=np.zeros((40, 8, 8), np.uint8), y=np.arange(40) % 2)
    np.savez(tmp_path / "tiny.npz", x=np.zeros((90, 8, 8), np.uint8), y=np.arange(90) % 10)
    return tmp_path


OPTIMIZE = ("--requirement", "classroom", "--out", "out")
BAD = [
    (("optimize", "resnet2@digits", *OPTIMIZE), "did you mean 'resnet20@digits'"),
    (("optimize", "empty.onnx", *OPTIMIZE), "empty.onnx"),
    (("optimize", "random.onnx", *OPTIMIZE), "random.onnx"),
    (("optimize", "nothing.onnx", *OPTIMIZE), "nothing.onnx"),
    (("optimize", "folder", *OPTIMIZE), "variant.json"),
    (("optimize", "lenet5@digits", "--dataset", "digitz", *OPTIMIZE), "did you mean 'digits'"),
    (("optimize", "lenet5@digits", "--dataset", "text.npz", *OPTIMIZE), "text.npz"),
    (("optimize", "lenet5@digits", "--dataset", "nothing.npz", *OPTIMIZE), "does not exist"),
    (("optimize", "lenet5@digits", "--dataset", "folder", *OPTIMIZE), "sub-folders"),
    (("optimize", "lenet5@digits", "--dataset", "one_class.npz", *OPTIMIZE), "one class"),
    (("optimize", "lenet5@digits", "--dataset", "small.npz", *OPTIMIZE), "knows 10 classes, 'small' has 2"),
    (("optimize", "lenet5@digits", "--dataset", "tiny.npz", *OPTIMIZE), "8×8 pixels with 1 channel"),
    (("optimize", "lenet5@digits", "--requirement", "classrom", "--out", "out"), "did you mean 'classroom'"),
    (("optimize", "lenet5@digits", "--requirement", "bad.toml", "--out", "out"), "objective"),
    (
        ("optimize", "lenet5@digits", "--requirement", "unknown.toml", "--out", "out"),
        "did you mean 'max_accuracy",
    ),
    (("optimize", "lenet5@digits", "--requirement", "text_limit.toml", "--out", "out"), "must be a number"),
    (("optimize", "lenet5@digits", "--requirement", "nan.toml", "--out", "out"), "max_size_bytes"),
    (("optimize", "lenet5@digits", "--requirement", "not.toml", "--out", "out"), "not.toml"),
    (("optimize", "lenet5@digits", "--requirement", "deep.toml", "--out", "out"), "deep.toml"),
    (
        ("optimize", "lenet5@digits", "--requirement", "vast.toml", "--out", "out"),
        "batch_size is out of range",
    ),
    (("optimize", "lenet5@digits", "--requirement", "a" * 300, "--out", "out"), "no requirement sheet"),
    (("optimize", "a" * 300, *OPTIMIZE), "unknown model"),
    (("optimize", "lenet5@digits", "--dataset", "a" * 300, *OPTIMIZE), "unknown dataset"),
    (("optimize", "lenet5@digits", "--requirement", "classroom", "--out", "small.npz"), "small.npz"),
    (("optimize", "lenet5@digits", "--requirement", "classroom", "--out", "."), "choose a new folder"),
    (("demo", "--dataset", "nothing"), "nothing"),
    (("train", "resnet21", "--out", "out"), "did you mean 'resnet20'"),
    (("train", "lenet5", "--out", "out", "--set", "epochs=0"), "epochs=0"),
    (("train", "lenet5", "--out", "out", "--set", "epochs=many"), "epochs='many'"),
    (("train", "lenet5", "--out", "out", "--set", "epoch=3"), "did you mean 'epochs'"),
    (("train", "lenet5", "--out", "out", "--set", "learning_rate"), "FIELD=VALUE"),
    (("prune", "lenet5@digits", "--out", "out", "--set", "sparsity=1.0"), "sparsity=1.0"),
    (("prune", "lenet5@digits", "--out", "out", "--set", "sparsity=-0.1"), "sparsity=-0.1"),
    (("prune", "lenet5@digits", "--out", "out", "--set", "sparsity=NaN"), "sparsity=nan"),
    (("prune", "lenet5@digits", "--out", "out", "--set", f"seed=1{'0' * 400}"), "seed is out of range"),
    (("prune", "lenet5@digits", "--out", "out", "--set", f"seed={'[' * 100_000}"), "must be of type int"),
    (("prune", "lenet5@digits", "--out", "out", "--method", "chanels"), "did you mean 'channels'"),
    (("distill", "lenet5@digits", "--out", "out", "--set", "temperature=0"), "temperature=0"),
    (("distill", "lenet5@digits", "--out", "out", "--set", "alpha=1.5"), "alpha=1.5"),
    (
        ("quantize", "lenet5@digits", "--out", "out", "--set", "calibration_samples=0"),
        "calibration_samples=0",
    ),
    (("quantize", "empty.onnx", "--out", "out"), "empty.onnx"),
    (("convert", "lenet5@digits", "--to", "tflit", "--out", "out"), "did you mean 'tflite'"),
    (("convert", "lenet5@digits", "--to", "torch", "--out", "out"), "already"),
    (("convert", "lenet5@digits", "--to", "mindspore", "--out", "out"), "from torch one reaches: pt2, onnx"),
    (
        ("convert", "lenet5@digits", "--to", "onnx", "--out", "out", "--set", "opzet=18"),
        "did you mean 'opset'",
    ),
    (("convert", "weights.pt", "--to", "onnx", "--out", "out"), "pickle"),
    (("convert", "nowhere.keras", "--to", "onnx", "--out", "out"), "does not exist"),
    (("inspect", "weights.pt"), "pickle"),
    (("inspect", "nowhere.onnx"), "nowhere.onnx"),
    (("inspect", "empty.onnx"), "empty.onnx"),
    (("measure", "lenet5@digits", "--runtime", "tensorflo"), "did you mean 'tensorflow'"),
    (("measure", "lenet5@digits", "--runtime", "openvino"), "none of the runtimes"),
    (("measure", "lenet5@digits", "--batch-size", "0"), "batch_size=0"),
    (("measure", "lenet5@digits", "--threads", "0"), "threads=0"),
    (("measure", "lenet5@digits", "--split", "valid"), "did you mean 'validation'"),
    (("measure", "lenet5@digits", "--precision", "int4"), "unknown precision 'int4'"),
    (("measure", "lenet5@digits", "--mean", "grey"), "--mean 'grey'"),
    (("measure", "lenet5@digits", "--std", "0"), "std above 0"),
    (("measure", "lenet5@digits", "--scale", "nan"), "finite numbers"),
    (("demo", "--dataset", "small.npz"), "labkit optimize MODEL --dataset DATA"),
    (("compare", "nothing"), "no study"),
    (("compare", "folder"), "no study"),
    (("choose", "--requirement", "classroom", "--study", "nothing"), "no study"),
    (("report", "nothing", "--out", "out"), "no study"),
    (("sweep", "nothing.ipynb", "--grid", "words.toml"), "nothing.ipynb"),
    (("data", "fetch", "cifar"), "unknown dataset 'cifar'"),
    (("course", "grade", "nothing.ipynb", "--pristine", "nothing.ipynb"), "nothing.ipynb"),
    (("lab", "nothing"), "nothing"),
    (("lab", "a" * 300), "there is no folder"),
]


@pytest.mark.parametrize(("words", "says"), BAD, ids=[" ".join(words[:6])[:80] for words, _ in BAD])
def test_bad_input_gets_one_line_and_exit_1(words, says, run, files):
    before = set(files.rglob("*"))
    status, out, err, seconds = run(*words)
    lines = [line for line in err.splitlines() if line.startswith("labkit: ")]
    assert status == 1, err
    assert len(lines) == 1 and says in lines[0], err
    assert out == "" and "Traceback" not in err
    assert set(files.rglob("*")) == before
    # The first command in this process also imports the engines, which is not the check's time.
    assert seconds < 2 or run(*words)[3] < 2


WRITERS = [
    ("demo", "--out"),
    ("optimize", "lenet5@digits", "--requirement", "classroom", "--out"),
    ("train", "lenet5", "--out"),
    ("train", "lenet5", "--out", "new", "--checkpoint"),
    ("convert", "lenet5@digits", "--to", "onnx", "--out"),
    ("quantize", "lenet5@digits", "--out"),
    ("prune", "lenet5@digits", "--out"),
    ("distill", "lenet5@digits", "--out"),
    ("measure", "lenet5@digits", "--out"),
    ("report", "folder", "--out"),
    ("sweep", "lesson.ipynb", "--grid", "words.toml", "--out"),
]


@pytest.mark.parametrize("folder", ["small.npz", "small.npz/below", "/proc/nowhere", "a" * 300])
@pytest.mark.parametrize("words", WRITERS, ids=" ".join)
def test_where_nothing_can_be_written_is_said_before_any_work(words, folder, run, files):
    before = set(files.rglob("*"))
    status, out, err, _ = run(*words, folder)
    assert status == 1 and out == "" and err.count("\n") == 1  # nothing was told of any step
    assert err.startswith(f"labkit: cannot write into {folder}: ")
    assert set(files.rglob("*")) == before


@pytest.mark.parametrize("kind", ["files", "a link", "a file"])
def test_somebody_elses_package_folder_is_refused_before_any_work(kind, run, files):
    (files / "theirs").mkdir()
    (files / "theirs" / "card.json").write_text("{}")
    (files / "out").mkdir()
    (files / "out" / "records.jsonl").touch()
    package = files / "out" / "package"
    {
        "files": lambda: (files / "theirs").rename(package),
        "a link": lambda: package.symlink_to(files / "theirs"),
        "a file": package.touch,
    }[kind]()
    before = set(files.rglob("*"))
    status, _, err, _ = run("optimize", "lenet5@digits", *OPTIMIZE)
    assert status == 1 and "out/package is not a package that labkit wrote" in err and "Building" not in err
    assert set(files.rglob("*")) == before


@pytest.mark.parametrize(
    "words",
    [
        ("nonsense",),
        ("optimize",),
        ("measure", "lenet5@digits", "--batch-size", "many"),
        ("demo", "--nonsense"),
    ],
)
def test_wrong_usage_exits_with_2(words, run, files):
    status, out, err, _ = run(*words)
    assert status == 2 and out == "" and "Traceback" not in err


def test_debug_shows_the_traceback(files):
    plain = subprocess.run([*LABKIT, "optimize", "x", *OPTIMIZE], capture_output=True, text=True)
    debug = subprocess.run([*LABKIT, "--debug", "optimize", "x", *OPTIMIZE], capture_output=True, text=True)
    assert "Traceback" not in plain.stderr and plain.returncode == 1
    assert "Traceback" in debug.stderr


def test_json_is_one_document_and_nothing_else(run, files):
    status, out, _, _ = run("quantize", "lenet5@digits", "--out", "int8", "--json")
    assert status == 0
    document = json.loads(out)
    assert document["format"] == "onnx" and document["quality"] > 0.95
    status, out, _, _ = run("measure", "int8", "lenet5@digits", "--runtime", "onnxruntime", "--json")
    assert status == 0 and [row["variant"] for row in json.loads(out)]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_command_that_is_ended_leaves_no_child_and_no_file(number, tmp_path):
    cell = {"cell_type": "code", "id": "c", "source": "while True: pass", "metadata": {"tags": ["check"]}}
    (tmp_path / "mine.ipynb").write_text(json.dumps({"nbformat": 4, "cells": [cell]}))
    (tmp_path / "aside").mkdir()
    process = subprocess.Popen(
        [*LABKIT, "course", "grade", "mine.ipynb", "--pristine", "mine.ipynb"],
        cwd=tmp_path,
        env={**os.environ, "TMPDIR": str(tmp_path / "aside")},
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(number, signal.SIG_DFL),  # the tests may run under nohup
    )
    while not (children := psutil.Process(process.pid).children(recursive=True)):
        assert process.poll() is None
        time.sleep(0.05)
    for _ in range(2):  # `timeout` sends it to the process, and then to its group
        process.send_signal(number)
    rest = process.communicate(timeout=60)[1]
    _, alive = psutil.wait_procs(children, timeout=3)
    assert process.returncode == 128 + number and rest == "\nlabkit: stopped\n"
    assert not alive and not list((tmp_path / "aside").iterdir())


@pytest.mark.parametrize(
    ("shell", "status", "says"),
    [
        ("{} data list --json >&-", 0, ""),
        ("{} measure nothing.onnx 2>&-", 1, ""),
        ("{} data list >/dev/full", 1, "labkit: No space left on device"),
        ("{} --help >/dev/full", 1, "labkit: No space left on device"),
        ("{} data list | true", 0, ""),
        ("PYTHONIOENCODING=ascii {} measure nothing-ü.onnx", 1, "labkit: nothing-\\xfc.onnx does not exist"),
        ("PYTHONIOENCODING=ascii {} doctor >/dev/null", 0, ""),
    ],
)
def test_whatever_the_terminal_is_there_is_no_traceback(shell, status, says, tmp_path):
    command = shell.format(f"{sys.executable} -c 'from labkit.cli import main; main()'")
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, cwd=tmp_path)
    assert (done.returncode, done.stderr.strip()) == (status, says)
    assert "labkit: " not in done.stdout


@pytest.mark.parametrize("error", [MemoryError(), RuntimeError("DefaultCPUAllocator: can't allocate memory")])
def test_too_little_memory_is_said_in_one_line(error, run, monkeypatch):
    def fail():
        raise error

    monkeypatch.setattr(labkit.cli, "app", fail)
    status, _, said, _ = run("prune")
    assert (status, said.count("\n")) == (1, 1) and "try a smaller batch_size" in said


def test_another_error_of_pytorch_s_is_not_taken_for_it(run, monkeypatch):
    def fail():
        raise RuntimeError("a bug")

    monkeypatch.setattr(labkit.cli, "app", fail)
    with pytest.raises(RuntimeError, match="a bug"):
        run("prune")


def test_ctrl_c_leaves_no_child_and_no_half_file(tmp_path):
    process = subprocess.Popen(
        [*LABKIT, "demo", "--out", str(tmp_path / "demo")],
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # ignored in a background job
    )
    for line in process.stderr:
        if "Screening" in line or "Building" in line:
            break
    time.sleep(1)
    children = psutil.Process(process.pid).children(recursive=True)
    os.killpg(process.pid, signal.SIGINT)
    _, alive = psutil.wait_procs(children, timeout=3)
    rest = process.stderr.read()
    assert process.wait(timeout=10) == 130
    assert "Traceback" not in rest and "stopped" in rest
    assert not [child for child in alive if child.status() != psutil.STATUS_ZOMBIE]
    assert list(tmp_path.rglob("*")) == []
