"""Explain: it names the planted cause first, blames nobody without evidence, and says what it could not find out.

The profiles here are real, the trials are scripted: what the clock would say is given, so that no test is timed.
`benchmarks/quantization/slow_cases.py` plants the cases, and the benchmark lets the clock speak.
"""

from __future__ import annotations

import dataclasses
import functools
import json
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
from onnx import helper

from benchmarks.quantization.slow_cases import CASES, SlowCase, slow_case
from benchmarks.quantization.slow_models import digits, resnet, resnet_int8
from labkit.environment import current
from labkit.errors import Cancelled, ConfigError, TensorError
from labkit.explain import CAUSES, Explanation, explain, plot_time, profile
from labkit.explain.causes import diagnose
from labkit.explain.evidence import (
    ALIGNED_CHAIN,
    ALLOWED_THREADS,
    BASELINE_FLOAT32,
    LARGER_BATCH,
    ONE_THREAD,
    UNSIGNED,
    Evidence,
)
from labkit.explain.executed import Executed
from labkit.explain.layers import ModelFile
from labkit.explain.profile import Operator, Profile, profiles
from labkit.explain.rewrite import Chain
from labkit.explain.trials import AGAINST, ITSELF, Entrant, Race
from labkit.measure.timing import Timing
from labkit.runtimes import RunOptions, get_runtime
from labkit.technique import probe
from labkit.variant import Variant
from labkit.zoo import load_model
from tests.graphs import W, network

SPEEDS = {
    "signed_activations": {UNSIGNED: 3.0},
    "too_many_threads": {ONE_THREAD: 1.5, ALLOWED_THREADS: 2.0},
    "baseline_not_float32": {AGAINST: 0.5, BASELINE_FLOAT32: 0.3},
}
"""Cause → how many times faster than the variant each entrant is, where it is not as fast."""

SEEN = (
    "quantize_static with its defaults",
    "dynamic quantization of convolutions",
    "90 % zeros",
    "weights only",
    "four times too many threads",
    "baseline in bfloat16",
    "a processor without VNNI",
)
"""The cases that are quickly planted; the benchmark sees them all."""


def timing(ms: float) -> Timing:
    return Timing(np.full(10, ms), np.full(10, ms), 1, True, 1.0)


def scripted(speeds: Mapping[str, float]):
    """A racer that lets nobody run: each entrant is as fast per sample as `speeds` say, or as the variant."""

    def run(entrants, protocol, progress) -> Race:
        times = {name: timing(each.batch_size / speeds.get(name, 1.0)) for name, each in entrants.items()}
        return Race(entrants, times)

    return run


@functools.cache
def explained(name: str) -> tuple[SlowCase, Explanation]:
    case = slow_case(name)
    if case.absent:
        pytest.skip(case.absent)
    racer = scripted(SPEEDS.get(case.cause, {}))
    return case, explain(case.variant, digits(), **case.options, racer=racer)


def operator(layer: str, ms: float, share: float, **changes) -> Operator:
    told = {"kind": "Conv", "name": layer, "work": "layer", "precision": "float32", "macs": None, **changes}
    return Operator(layer=layer, ms=ms, share=share, **told)


def evidence(*operators: Operator, speeds: Mapping[str, float] | None = None, **changes) -> Evidence:
    """Of a file about which nothing is known; every entrant fed one sample."""
    names = [ITSELF, *(speeds or {})]
    feeds = {"x": np.zeros((1, 1), np.float32)}
    runtime, options = get_runtime("onnxruntime"), RunOptions()
    entrants = {name: Entrant(chain_variant(), feeds, runtime, options) for name in names}
    race = scripted(speeds or {})(entrants, None, None)
    own = Profile("net", "onnxruntime", 1, 1, 1, operators)
    return Evidence(**{"profile": own, "file": None, "race": race, "environment": current(), **changes})


def chain_variant(int8: bool = False) -> Variant:
    return Chain(4, 8, (3, 3), (6, 6), int8).variant()


@pytest.mark.extra
def test_there_are_ten_cases_or_more_and_each_has_a_cause_of_its_own():
    assert len(CASES) >= 10
    causes = {cause.__name__ for cause in CAUSES}
    assert {explained(name)[0].cause for name in SEEN} <= causes
    assert set(SEEN) <= set(CASES)


@pytest.mark.parametrize("name", SEEN)
def test_the_cause_that_was_planted_is_named_first(name):
    case, found = explained(name)
    assert found.names(case.cause), found.says


@pytest.mark.parametrize("name", SEEN)
def test_without_the_cause_it_is_not_named(name):
    case, _ = explained(name)
    found = explain(case.cure, digits(), **case.cure_options, racer=scripted({}))
    assert case.cause not in [each.cause for each in found.findings], found.says


@pytest.mark.parametrize("runtime", ["onnxruntime", "openvino"])
def test_a_well_quantized_network_is_not_accused(runtime):
    found = explain(resnet_int8(), digits(), batch_size=8, runtime=runtime, racer=scripted({}))
    assert found.findings == ()
    assert "Nothing stands out" in found.says


def test_a_faster_variant_is_called_faster_and_has_its_breakdown():
    found = explain(resnet_int8(), digits(), against=resnet(), batch_size=8, racer=scripted({AGAINST: 0.5}))
    assert found.says.startswith("'resnet20@digits+quantize_int8' is faster: 2.00×")
    assert "QLinearConv" in found.says


@pytest.mark.parametrize(("speed", "verdict"), [(2.0, "is slower"), (1.0, "neither faster nor slower")])
def test_the_ratio_is_told_first(speed, verdict):
    found = explain(resnet(), digits(), against=resnet_int8(), batch_size=2, racer=scripted({AGAINST: speed}))
    assert verdict in found.says.splitlines()[0]


def test_signed_grids_are_not_blamed_where_unsigned_ones_are_no_faster():
    case = slow_case("quantize_static with its defaults")
    found = explain(case.variant, digits(), batch_size=8, racer=scripted({}))
    assert found.names("float_layers")
    assert "signed_activations" not in [each.cause for each in found.findings]


@pytest.mark.parametrize(
    ("name", "cause"),
    [(UNSIGNED, "signed_activations"), (ONE_THREAD, "too_many_threads"), (LARGER_BATCH, "small_batch")],
)
def test_a_trial_without_effect_accuses_nobody(name, cause):
    for speed, blamed in ((1.02, False), (3.0, True)):
        found = diagnose(evidence(operator("", 1.0, 1.0), speeds={name: speed}))
        assert (cause in [each.cause for each in found]) == blamed


def test_a_trial_that_is_not_sure_is_repeated_and_then_called_unresolved():
    races = []

    def uncertain(entrants, protocol, progress) -> Race:
        races.append(entrants)
        times = {name: timing(each.batch_size) for name, each in entrants.items()}
        ms = 32 * np.tile([0.2, 2.0], 5)  # a fifth of the time, or twice as long
        times[LARGER_BATCH] = Timing(ms, ms, 1, True, 1.0)
        return Race(entrants, times)

    found = explain(resnet(), batch_size=2, racer=uncertain)
    assert len(races) == 3
    assert found.findings == ()
    assert any(note.startswith("unresolved: in a larger batch") for note in found.notes)


def test_a_trial_that_is_sure_is_not_repeated():
    races = []

    def sure(entrants, protocol, progress) -> Race:
        races.append(entrants)
        return scripted({LARGER_BATCH: 2.0})(entrants, protocol, progress)

    assert explain(resnet(), batch_size=2, racer=sure).names("small_batch")
    assert len(races) == 1


def test_the_largest_share_comes_first_and_small_ones_are_not_named():
    speeds = {UNSIGNED: 1.5, LARGER_BATCH: 4.0, ONE_THREAD: 1.08}
    found = diagnose(evidence(operator("", 1.0, 1.0), speeds=speeds))
    assert [each.cause for each in found] == ["small_batch", "signed_activations"]
    assert found[0].share == pytest.approx(0.75)


def test_a_processor_that_does_not_tell_its_features_is_not_blamed():
    layer = operator("", 1.0, 1.0, kind="QLinearConv", precision="int8")
    for features, blamed in (
        ((), False),
        (("avx2",), True),
        (("avx2", "avx_vnni"), False),
        (("neon",), True),
    ):
        machine = dataclasses.replace(current(), cpu_features=features)
        assert bool(diagnose(evidence(layer, environment=machine))) == blamed


def test_every_finding_says_what_to_do():
    for name in SEEN:
        for each in explained(name)[1].findings:
            assert each.advice
            assert 0 < each.share <= 1


def test_shares_add_up_and_every_layer_is_found_once():
    found = explained("quantize_static with its defaults")[1].profile
    assert sum(each.share for each in found.operators) == pytest.approx(1)
    layers = [each.layer for each in found.operators if each.layer]
    assert len(layers) == len(set(layers)) == 22
    assert {"stem", "blocks.3.shortcut.0", "blocks.8.conv2", "fc"} <= set(layers)


@pytest.mark.parametrize("runtime", ["onnxruntime", "openvino"])
@pytest.mark.parametrize("make", [resnet, resnet_int8])
def test_the_multiply_adds_of_a_profile_are_those_of_the_file(runtime, make):
    variant = make()
    file = ModelFile(variant, 2)
    found = profile(variant, probe(variant, 2), get_runtime(runtime), RunOptions(), file)
    assert (
        sum(each.macs or 0 for each in found.operators) == sum(layer.macs or 0 for layer in file.layers) > 8e7
    )
    integers = {each.precision for each in found.operators if each.layer} == {"int8"}
    assert integers == variant.quantized


def test_profiles_that_are_compared_have_met_the_same_processor(monkeypatch):
    started = []

    def slow_for_a_while(variant, feeds, runtime, options, runs):
        started.append(variant.name)
        ms = 3.0 if len(started) in (4, 5, 6) else 1.0  # after a short look at both
        return [Executed("Conv", "conv", "layer", "float32", (ms,) * runs)]

    monkeypatch.setattr("labkit.explain.read_ort.read", slow_for_a_while)
    first, second = (
        Entrant(variant, probe(variant, 1), get_runtime("onnxruntime"), RunOptions())
        for variant in (chain_variant(), chain_variant(int8=True))
    )
    own, theirs = profiles([(first, None), (second, None)])
    assert own.total_ms == theirs.total_ms == 1.0
    assert own.runs >= 12 and theirs.runs >= 12


@pytest.mark.parametrize("runtime", ["onnxruntime", "openvino"])
def test_nodes_without_names_are_told_apart(runtime):
    nodes = [helper.make_node("MatMul", [a, "w"], [b]) for a, b in (("x", "h"), ("h", "y"))]
    variant = network(*nodes, w=W)
    found = profile(variant, probe(variant, 2), get_runtime(runtime), RunOptions(), ModelFile(variant, 2))
    assert [each.macs for each in found.operators if each.layer] == [72, 72]


@pytest.mark.parametrize("runtime", ["onnxruntime", "openvino"])
def test_every_layer_of_a_network_with_fused_activations_is_found(runtime, lenet):
    from labkit.convert import ExportOnnx

    variant = ExportOnnx()(lenet, digits())
    found = profile(variant, probe(variant, 2), get_runtime(runtime), RunOptions(), ModelFile(variant, 2))
    assert {each.layer for each in found.operators if each.layer} == {"conv1", "conv2", "fc1", "fc2"}


def test_the_profile_s_file_is_removed(monkeypatch, tmp_path):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    variant = chain_variant()
    profile(variant, probe(variant, 2), get_runtime("onnxruntime"), RunOptions())
    assert list(tmp_path.glob("labkit-profile*")) == []
    assert list(Path().glob("onnxruntime_profile*")) == []


@pytest.mark.parametrize(("speed", "blamed"), [(1.8, True), (1.02, False)])
def test_odd_channels_are_blamed_only_where_even_ones_are_faster(speed, blamed):
    variant = Chain(30, 30, (3, 3), (16, 16), False).variant()
    found = explain(variant, batch_size=2, racer=scripted({ALIGNED_CHAIN: speed}))
    assert found.names("unaligned_channels") == blamed
    if blamed:
        assert "30 to 30 channels" in found.says and "The channels of 4 layers (" in found.says


def test_what_cannot_be_profiled_is_refused_in_words(lenet):
    with pytest.raises(ConfigError, match="export it first"):
        explain(lenet)
    with pytest.raises(ConfigError, match="torch.*known: onnxruntime, openvino"):
        explain(lenet, runtime="torch")
    with pytest.raises(ConfigError, match="batch_size=0"):
        explain(resnet(), batch_size=0)
    with pytest.raises(ConfigError, match="did you mean 'bfloat16'"):
        explain(resnet(), against_precision="bfloat")
    with pytest.raises(TensorError):
        explain(network(helper.make_node("MatMul", ["x", "w"], ["y"]), w=W), digits())


def test_it_can_be_stopped():
    def stop(fraction: float, message: str) -> None:
        raise Cancelled

    with pytest.raises(Cancelled):
        explain(resnet(), batch_size=2, progress=stop)


def test_a_format_that_does_not_tell_its_layers_says_so():
    from labkit.convert import OnnxToOpenVino

    found = explain(OnnxToOpenVino()(resnet()), batch_size=2, runtime="openvino", racer=scripted({}))
    assert any("ONNX file" in note for note in found.notes)
    assert found.profile.operators


def test_the_table_and_the_figure_show_both():
    found = explained("quantize_static with its defaults")[1]
    lines = found.table().splitlines()
    assert len(lines) == 17
    assert "blocks." in found.table()
    figure = plot_time(found)
    assert [text.get_text() for text in figure.axes[0].get_yticklabels()] == [
        "resnet20@digits",
        "resnet20@digits, quantize_sta…",
    ]
    assert "signed grids" in figure.get_label()


def test_the_command_prints_one_json_document(monkeypatch, capsys):
    from labkit.cli import main

    monkeypatch.setattr(sys, "argv", ["labkit", "explain", "lenet5@digits", "--batch-size", "4", "--json"])
    main_ended = pytest.raises(SystemExit)
    with main_ended as ended:
        main()
    assert not ended.value.code
    document = json.loads(capsys.readouterr().out)
    assert document["variant"] == "lenet5@digits"
    assert {"findings", "profile", "run_ms"} <= set(document)


def test_a_zoo_model_that_is_not_onnx_is_exported_by_the_command(monkeypatch, capsys):
    from labkit.cli import main

    monkeypatch.setattr(sys, "argv", ["labkit", "explain", "lenet5@digits", "--runtime", "onnxrt"])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 1
    assert "did you mean 'onnxruntime'" in capsys.readouterr().err
    assert load_model("lenet5@digits").format == "torch"


def test_races_whose_blocks_hold_different_numbers_of_runs_are_joined():
    def race_of(runs, ms):
        timing = Timing(np.full(4, ms), np.repeat(ms, 4 * runs), 1, True, 1.0)
        return Race({}, {ITSELF: timing})

    joined = race_of(3, 1.0).with_more(race_of(5, 2.0)).with_more(race_of(2, 2.0))
    assert joined.run_ms(ITSELF) == 2.0 and len(joined.timings[ITSELF].block_ms) == 12
