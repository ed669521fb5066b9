"""The main job, as a stranger runs it: on one CPU, within Binder's memory, with every technique in it."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

LABKIT = [sys.executable, "-c", "from labkit.cli import main; main()"]
MOST_MEMORY_MB = 900
# A process inherits the peak of the one that it was forked from, and pytest's is large: so a small one starts it.
WAIT = """
import os, subprocess, sys
_, status, usage = os.wait4(subprocess.Popen(sys.argv[2:]).pid, 0)
open(sys.argv[1], "w").write(str(usage.ru_maxrss))
sys.exit(os.waitstatus_to_exitcode(status))
"""


@pytest.fixture(scope="module")
def demo(tmp_path_factory):
    """(document, folder, peak memory in MB, what was told) of one run of `labkit demo --json` on one CPU."""
    folder = tmp_path_factory.mktemp("demo")
    with open(folder / "told", "w") as told:
        done = subprocess.run(
            [
                sys.executable,
                "-c",
                WAIT,
                str(folder / "peak"),
                *LABKIT,
                "demo",
                "--json",
                "--out",
                str(folder / "out"),
            ],
            stdout=subprocess.PIPE,
            stderr=told,
            text=True,
            env={**os.environ, "LABKIT_CPUS": "1", "OMP_NUM_THREADS": "1"},
        )
    assert done.returncode == 0, (folder / "told").read_text()
    peak_mb = int((folder / "peak").read_text()) / 1024
    return json.loads(done.stdout), folder / "out", peak_mb, (folder / "told").read_text()


@pytest.mark.extra
def test_it_stays_within_binders_memory_on_one_cpu(demo):
    document, _, peak_mb, _ = demo
    print(f"peak memory {peak_mb:.0f} MB")
    assert peak_mb < MOST_MEMORY_MB
    assert document["environment"]["cpus"] == 1


@pytest.mark.extra
def test_every_technique_runtime_and_batch_size_is_in_it(demo):
    document, _, _, told = demo
    chains = {tuple(step["technique"] for step in record["lineage"]) for record in document["records"]}
    for chain in (
        ("train", "export_onnx", "quantize_int8"),
        ("train", "prune_magnitude", "export_onnx"),
        ("train", "prune_channels", "export_onnx", "quantize_int8"),
        ("train", "distill", "export_onnx", "quantize_int8"),
    ):
        assert chain in chains
    screened = [record for record in document["records"] if record["num_workers"] == 1]
    assert {record["runtime"] for record in screened} == {"torch", "onnxruntime", "openvino"}
    assert {record["batch_size"] for record in screened} >= {1, 32}
    origins = {step["origin"] for record in document["records"] for step in record["lineage"]}
    assert origins == {"zoo", "here"}, "the network came along, the rest was made here"
    for word in ("Building", "Screening", "Pairing", "Confirming", "pool"):
        assert word in told


@pytest.mark.extra
def test_it_ends_in_a_choice_with_reasons_a_report_and_a_package(demo):
    document, folder, _, _ = demo
    decision = document["decision"]
    keys = {record["key"] for record in document["comparison"]}
    assert decision["chosen"] in keys and decision["confirmed_on_test"]["status"] in (
        "confirmed",
        "not resolved",
    )
    assert len(keys) == 6 and all(pair["speedup_ci95"] for pair in document["comparison"])
    assert all(rejection["reason"] for rejection in decision["rejected"])
    assert {"index.html", "records.jsonl", "package"} <= {path.name for path in folder.iterdir()}
    answer = subprocess.run(
        [sys.executable, "-I", str(folder / "package" / "run.py")], capture_output=True, text=True, check=True
    )
    assert len(json.loads(answer.stdout)) == 8
