"""Model files that lie, explode or carry code: one line of ours each, in time, in memory, with nothing left behind."""

from __future__ import annotations

import functools
import io
import os
import pickle
import re
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest

from labkit.cli import main
from labkit.errors import LabkitError, ModelFileError
from labkit.formats import load_file
from labkit.formats.opening import READERS
from labkit.formats.sandbox import ask
from labkit.formats.sizes import is_a_size
from labkit.inspection import inspect_file
from labkit.runtimes import get_runtime
from labkit.variant import Variant, read_folder
from labkit.zoo import load_model
from tests.hostile.keras_files import keras, layer
from tests.hostile.making import CODE, EXECUTED, Case, Malicious, processor_seconds, zipped
from tests.hostile.model_files import (
    DATA,
    INTERPRETED,
    LITERT,
    OPENED,
    SAFETENSORS,
    SAVED_MODEL,
    STATIC,
    patched,
)
from tests.hostile.model_files import variant as variant_files
from tests.hostile.openvino_files import ir
from tests.hostile.pt2_files import program, program_set, program_where, program_with

CASES = STATIC | OPENED
MOST_SECONDS, MOST_MB = 2.0, 300


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    """Whatever code leaves behind, it leaves here, where it would be seen."""
    monkeypatch.chdir(tmp_path)


@functools.cache
def import_seconds(module: str) -> float:
    """What a child takes to import its libraries, which is not the file's fault."""
    before = processor_seconds()
    with pytest.raises(ModelFileError):
        ask(module, Path("nothing"), b"", 2_000_000_000, 10.0)
    return processor_seconds() - before


def listing(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


def refusal(read, path: Path) -> str | None:
    """The one line that `read` refuses the file with, or None if it takes it; any other error fails the test."""
    try:
        read(path)
    except LabkitError as error:
        text = str(error)
        assert "\n" not in text and len(text) < 600 and str(path.parent) in text, text
        return text
    return None


@pytest.mark.parametrize("name", CASES)
def test_a_hostile_file_is_refused_in_time_in_one_line_and_nothing_is_left(name, tmp_path):
    case = CASES[name]
    path = case.write(tmp_path)
    there = listing(tmp_path)
    child = "labkit.formats.pt2_child" if name.startswith("pt2") and name in OPENED else None
    allowed = MOST_SECONDS + (import_seconds(child) if child else 0)
    before = processor_seconds()
    text = refusal(load_model, path)
    assert text and re.search(case.says, text), text
    between = processor_seconds()
    shown = refusal(inspect_file, path)
    assert (shown is None) == case.is_shown, shown
    assert between - before <= allowed and processor_seconds() - between <= MOST_SECONDS
    assert listing(tmp_path) == there


@pytest.mark.parametrize("name", INTERPRETED)
def test_a_damaged_flatbuffer_is_refused_by_whoever_reads_it(name, tmp_path):
    """LiteRT may not be installed: then loading says so, and inspecting needs it not."""
    path = INTERPRETED[name].write(tmp_path)
    assert refusal(load_model, path) and refusal(inspect_file, path)


@pytest.mark.parametrize("name", SAFETENSORS)
def test_a_hostile_file_of_tensors_is_refused(name, tmp_path):
    content, says = SAFETENSORS[name]
    path = tmp_path / "m.safetensors"
    path.write_bytes(content)
    assert "without the network" in str(refusal(load_model, path))
    assert re.search(says, str(refusal(inspect_file, path)))


def test_every_hostile_file_is_a_typed_error(tmp_path):
    """A count, in a process of its own whose memory is looked at, for every format that needs no heavy import."""
    for number, (name, case) in enumerate((STATIC | OPENED | INTERPRETED).items()):
        if not name.startswith("pt2") or name in STATIC:
            (tmp_path / str(number)).mkdir()
            (tmp_path / str(number) / "given").write_text(str(case.write(tmp_path / str(number))))
    code = """
import pathlib, re, sys
from labkit.errors import LabkitError
from labkit.zoo import load_model
import labkit.formats.external, onnx, labkit.inspection.inspecting
given = [path.read_text() for path in pathlib.Path(sys.argv[1]).glob("*/given")]
status = pathlib.Path("/proc/self/status")  # getrusage's peak is that of the process that forked, too
peak = lambda: int(re.search(r"VmHWM:\\s+(\\d+)", status.read_text())[1]) / 1e3
before, refused = peak(), 0
for path in given:
    try:
        load_model(path)
        print(path, "was let through")
    except LabkitError:
        refused += 1
print(len(given), refused, peak() - before)
"""
    done = subprocess.run([sys.executable, "-c", code, tmp_path], capture_output=True, text=True, check=True)
    total, refused, grown = map(float, done.stdout.split())
    print(f"{total:.0f} hostile files: {refused:.0f} typed errors, memory up by {grown:.0f} MB")
    assert total == refused >= 50 and 0 < grown <= MOST_MB


@pytest.mark.parametrize("name", [name for index, name in enumerate(CASES) if index % 6 == 0])
def test_the_command_line_says_it_in_one_line_and_exits_with_1(name, tmp_path, monkeypatch, capsys):
    path = CASES[name].write(tmp_path)
    there = listing(tmp_path)
    words = ["convert", str(path), "--to", "onnx", "--out", "o"], ["inspect", str(path)]
    for line in words[: 1 if CASES[name].is_shown else 2]:
        monkeypatch.setattr(sys, "argv", ["labkit", *line])
        with pytest.raises(SystemExit) as ended:
            main()
        error = capsys.readouterr().err
        assert ended.value.code == 1 and error.count("\n") == 1 and "Traceback" not in error, error
        assert listing(tmp_path) == there


def test_a_pickle_among_the_sample_inputs_is_dropped_and_never_executed(tmp_path):
    path = tmp_path / "m.pt2"
    path.write_bytes(program_with(**{"data__sample_inputs__model.pt": pickle.dumps(Malicious())}))
    variant = load_model(path)
    with zipfile.ZipFile(io.BytesIO(variant.payload)) as archive:
        assert archive.read("archive/data/sample_inputs/model.pt") == b""
    assert inspect_file(path).parameters == 155
    assert not os.path.exists(EXECUTED)


def test_guards_of_a_program_are_dropped_and_never_executed(tmp_path):
    """PyTorch keeps them as texts in the graph, and evaluates them when the program is run."""
    path = tmp_path / "m.pt2"
    path.write_bytes(program_set("guards_code", [f"{CODE} is None"]))
    variant = load_model(path)
    ones = np.ones((3, 6), np.int64)
    with get_runtime("torch").load(variant) as session:
        session.run({spec.name: ones for spec in variant.inputs})
    assert not os.path.exists(EXECUTED)
    saved = Variant(variant.name, "pt2", path.read_bytes(), variant.inputs, variant.outputs).save(
        tmp_path / "v"
    )
    assert "holds guards" in str(refusal(load_model, saved))


RUN = """
import pickle, sys, warnings
import torch
warnings.simplefilter("ignore")
try:
    ones = torch.ones(3, 6, dtype=torch.int64)
    torch.export.load(sys.argv[1]).module()(ones, ones)
except Exception as error:
    print(error)
"""
"""How PyTorch alone opens and runs a program."""

FIRES = {
    "a size": lambda: program_set("expr_str", CODE),
    "a guard": lambda: program_set("guards_code", [f"{CODE} is None"]),
    "a name": lambda: program_where('"mask"', f'"mask={CODE}"'),
    "a weight": lambda: program_with(
        data__weights__weight_0=zipped_pickle(),
        **{"data__weights__model_weights_config.json": weights_config()},
    ),
}


def zipped_pickle() -> bytes:
    """What torch.load takes."""
    return zipped({"a/data.pkl": pickle.dumps(Malicious()), "a/version": b"3", "a/byteorder": b"little"})


def weights_config() -> bytes:
    with zipfile.ZipFile(io.BytesIO(program())) as archive:
        text = archive.read("archive/data/weights/model_weights_config.json")
    return text.replace(b'"use_pickle": false', b'"use_pickle": true', 1)


@pytest.mark.parametrize("place", FIRES)
def test_pytorch_alone_would_have_run_the_code(place, tmp_path):
    """The negative control: the same files do fire."""
    (tmp_path / "m.pt2").write_bytes(FIRES[place]())
    subprocess.run([sys.executable, "-c", RUN, "m.pt2"], check=True, capture_output=True)
    assert os.path.exists(EXECUTED)


def test_other_plain_readers_would_have_let_them_through(tmp_path):
    """The negative control: nothing in these archives and folders disturbs a reader that does not look."""
    for name in ("pt2: name above", "pt2: link", "keras: name above", "keras: bomb"):
        case = CASES[name]
        with zipfile.ZipFile(case.write(tmp_path / name)) as archive:
            assert archive.namelist()
    path = CASES["SavedModel: variables are a link"].write(tmp_path / "saved")
    assert b"root:" in (path / "variables/variables.data-00000-of-00001").read_bytes()
    assert pickle.loads(CASES["a plain pickle"].write(tmp_path / "p").read_bytes())
    assert os.path.exists(EXECUTED)


@pytest.mark.parametrize(
    "text",
    [
        "Symbol('s23', positive=True, integer=True)",
        "Mul(Integer(2), Symbol('s0', positive=True, integer=True))",
        "Pow(Symbol('s27', positive=True, integer=True), Integer(2))",
        "FloorDiv(Symbol('s27', integer=True), Integer(2))",
        "Add(Integer(-1), Mul(Rational(1, 2), Symbol('u0')))",
        "2*s0 + 1",
        "s0**2",
    ],
)
def test_arithmetic_of_sizes_is_none_of_that(text):
    assert is_a_size(text)
    assert not is_a_size(text.replace("s", "os.system('')", 1) + ".x")


def test_fuzzed_bytes_of_every_format_raise_our_errors_only(tmp_path):
    """One byte in three places changed: refused or shown, and nothing else. The children are few: they cost."""
    random = np.random.default_rng(0)
    folder = {name.removeprefix("m/"): data for name, data in SAVED_MODEL["ReadFile"][0]().items()}
    seeds = {"m.tflite": LITERT, "m.pt2": program(), "saved_model.pb": folder["saved_model.pb"]}
    refused = 0
    for turn in range(18):
        name = list(seeds)[turn % 3]
        content = seeds[name]
        for place in random.integers(0, min(len(content), 1500), 3):
            content = patched(content, int(place), bytes([random.integers(0, 256)]))
        (tmp_path / name).write_bytes(content)
        refused += refusal(inspect_file, tmp_path / name) is not None
    print(f"{refused} of 18 refused")
    assert refused >= 3


def test_the_good_files_that_they_are_made_from_load(tmp_path):
    """The positive control: it is the one change that is refused."""
    (tmp_path / "m.pt2").write_bytes(program())
    variant = load_file(tmp_path / "m.pt2")
    assert [spec.dtype for spec in variant.inputs] == ["int64", "int64"]
    assert variant.outputs[0].shape[-1] == 3
    ones = np.ones((3, 6), np.int64)
    with get_runtime("torch").load(variant) as session:
        (output,) = session.run({spec.name: ones for spec in variant.inputs}).values()
    assert output.shape == (6, 3)
    (tmp_path / "m.xml").write_bytes(ir())
    (tmp_path / "m.bin").write_bytes(np.ones(4, np.float32).tobytes())
    assert load_model(tmp_path / "m.xml").format == "openvino"
    dense = layer(
        "Dense", units=3, activation="relu", kernel_initializer=layer("Zeros", "keras.initializers")
    )
    READERS["keras"].check(keras(dense), "it")
    READERS["tflite"].check(LITERT, "it")
    READERS["tensorflow"].check(read_folder(DATA / "saved_model"), "it")
    assert Variant.load(Case("m", variant_files, "").write(tmp_path)).format == "onnx"


def test_a_program_that_explodes_when_it_runs_is_refused_before_we_run_it(tmp_path):
    """160 GB of zeros in 7 kB: opening it is harmless, one sample is not."""
    import torch

    class Bomb(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x + torch.zeros(200_000, 200_000).sum()

    program = torch.export.export(Bomb(), (torch.zeros(2, 3),), dynamic_shapes=({0: torch.export.Dim("n")},))
    torch.export.save(program, tmp_path / "bomb.pt2")
    with pytest.raises(ModelFileError, match="bomb.pt2: it takes far more memory than its size explains"):
        load_file(tmp_path / "bomb.pt2")
