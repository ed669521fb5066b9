"""A graph under quantization-aware training: norms folded in training, biases in int32, and the file it becomes."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper

from labkit.errors import DataError
from labkit.onnx_graph import fold_batch_norm, open_graph
from labkit.onnx_graph.as_torch import as_torch
from labkit.quantize.aware import _after_step
from labkit.quantize.gate import start
from labkit.quantize.graph.plan import make_plan
from labkit.quantize.graph.qdq import Rounded, insert_qdq
from labkit.quantize.training.fake_graph import FakeQuantized
from labkit.quantize.training.low_bits import plan_bits
from labkit.runtimes import get_runtime
from labkit.variant import TensorSpec, Variant

RANDOM = np.random.default_rng(0)


def floats(*shape):
    return RANDOM.standard_normal(shape).astype(np.float32)


def residual(with_norm=True):
    """image [N, 2, 6, 6] → conv (→ norm) → relu = a; conv(a) (→ norm) + a → relu → mean → 3 logits."""
    make = helper.make_node
    nodes = [
        make("Conv", ["image", "w1", "b1"], ["c1"], pads=[1, 1, 1, 1]),
        make("BatchNormalization", ["c1", "g1", "h1", "m1", "v1"], ["n1"]),
        make("Relu", ["n1"], ["a"]),
        make("Conv", ["a", "w2"], ["c2"], pads=[1, 1, 1, 1]),
        make("BatchNormalization", ["c2", "g2", "h2", "m2", "v2"], ["n2"]),
        make("Add", ["n2", "a"], ["s"]),
        make("Relu", ["s"], ["r"]),
        make("Conv", ["r", "w3"], ["c3"], pads=[1, 1, 1, 1]),
        make("Relu", ["c3"], ["r3"]),
        make("GlobalAveragePool", ["r3"], ["p"]),
        make("Flatten", ["p"], ["f"]),
        make("Gemm", ["f", "w4", "b4"], ["logits"]),
    ]
    if not with_norm:
        nodes = [node for node in nodes if node.op_type != "BatchNormalization"]
        nodes[0].output[0], nodes[2].output[0] = "n1", "n2"
    constants = {"w1": floats(4, 2, 3, 3) / 3, "b1": floats(4), "w2": floats(4, 4, 3, 3) / 5}
    constants |= {"w3": floats(4, 4, 3, 3) / 5, "w4": floats(4, 3), "b4": floats(3)}
    for index in "12":
        constants |= {f"g{index}": 0.5 + np.abs(floats(4)), f"h{index}": floats(4)}
        constants |= {f"m{index}": floats(4), f"v{index}": 0.5 + np.abs(floats(4))}
    used = {name for node in nodes for name in node.input}
    body = helper.make_graph(
        nodes,
        "residual",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["batch", 2, 6, 6])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", 3])],
        [numpy_helper.from_array(np.asarray(v), k) for k, v in constants.items() if k in used],
    )
    return helper.make_model(body, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)


def as_variant(model):
    return Variant(
        name="residual",
        format="onnx",
        model=model.SerializeToString(),
        inputs=(TensorSpec("image", "float32", ("batch", 2, 6, 6), "NCHW"),),
        outputs=(TensorSpec("logits", "float32", ("batch", 3)),),
        labels=("a", "b", "c"),
    )


def fake(model, weight_bits=4, activation_bits=4, settled=False):
    work = start(as_variant(model))
    bits, weights = plan_bits(work, weight_bits, activation_bits, 8)
    base = open_graph(model.SerializeToString())
    module = FakeQuantized(work.model, base, work.plan, bits, weights, per_channel=True).eval()
    images = torch.from_numpy(floats(16, 2, 6, 6))
    with torch.no_grad():
        before = module(images)
        for layer in work.plan.layers if settled else ():  # each norm takes over the statistics of this batch
            if norm := module.norm(layer):
                norm.momentum = 1.0
                module.train()(images)
        module.eval()(images)
    module.start_grids()
    return work, module, images, before


def test_until_its_grids_have_started_it_computes_what_the_float_graph_does():
    model = residual()
    _, module, images, before = fake(model)
    with torch.no_grad():
        torch.testing.assert_close(before, as_torch(model)(images), atol=1e-5, rtol=1e-5)
        assert (module(images) - before).abs().max() > 1e-3


def test_what_only_layers_read_has_their_bits_and_a_sum_keeps_8():
    work = start(as_variant(residual()))
    bits, weights = plan_bits(work, 3, 4, 8)
    by_output = {layer.output: layer for layer in work.plan.layers}
    assert weights == {"w1": 8, "w2": 3, "w3": 3, "w4": 8}
    assert bits["image"] == 8 and bits["a"] == 8  # the sum reads it too
    assert by_output["n2"].input == "a/4_bits" and bits["a/4_bits"] == 4
    assert by_output["c3"].input == "r" and bits["r"] == 4
    onnx.checker.check_model(work.model)


def test_with_8_bits_everywhere_the_plan_is_that_of_static_quantization():
    work = start(as_variant(residual()))
    before = make_plan(work.model)
    bits, weights = plan_bits(work, 8, 8, 8)
    assert work.plan == before and set(bits.values()) == set(weights.values()) == {8}


def test_a_norm_is_folded_with_the_batch_s_statistics_first_and_then_with_the_running_ones():
    model = residual()
    work, module, images, _ = fake(model)
    layer = next(layer for layer in work.plan.layers if layer.output == "n2")
    folded = open_graph(model.SerializeToString())
    fold_batch_norm(folded)
    stored = {t.name: numpy_helper.to_array(t) for t in folded.graph.initializer}
    np.testing.assert_allclose(module.weight(layer).detach(), stored["w2"], rtol=1e-5)
    np.testing.assert_allclose(module.bias(layer).detach(), stored["n2/bias"], rtol=1e-4, atol=1e-5)
    norm = module.norm(layer)
    mean = norm.get_buffer("mean").clone()
    module.train()
    with torch.no_grad():
        in_training = module(images)
        assert not torch.equal(norm.get_buffer("mean"), mean)
        module.frozen = True
        mean = norm.get_buffer("mean").clone()
        frozen = module(images)
        assert torch.equal(norm.get_buffer("mean"), mean)
        assert torch.equal(module.eval()(images), frozen)
    assert (in_training - frozen).abs().max() > 1e-3


def test_where_batch_and_running_statistics_agree_both_ways_of_folding_do():
    _, module, images, _ = fake(residual(), 8, 8, settled=True)
    module.train()
    with torch.no_grad():
        with_batch = module(images)
        module.frozen = True
        with_running = module(images)
    # they differ by what rounding does to the statistics, and by 575/576: the running variance is the unbiased one
    error = (with_batch - with_running).abs().mean()
    assert error < 0.01 * with_batch.std()
    for norm in module._norms:
        norm.get_buffer("variance").mul_(1.5)
    with torch.no_grad():
        assert (module(images) - with_batch).abs().mean() > 5 * error


def test_a_channel_whose_norm_is_0_trains_without_nan():
    model = residual()
    for tensor in model.graph.initializer:
        if tensor.name == "g2":
            tensor.CopyFrom(numpy_helper.from_array(np.float32([0, 1, 1, 1]), "g2"))
    _, module, images, _ = fake(model)
    module.train()(images).pow(2).sum().backward()
    assert all(p.grad is None or torch.isfinite(p.grad).all() for p in module.parameters())


def test_calibration_samples_of_nothing_but_zeros_are_refused():
    model = residual()
    for tensor in model.graph.initializer:
        tensor.CopyFrom(numpy_helper.from_array(0 * numpy_helper.to_array(tensor), tensor.name))
    work = start(as_variant(model))
    bits, weights = plan_bits(work, 4, 4, 8)
    module = FakeQuantized(work.model, model, work.plan, bits, weights, True).eval()
    module(torch.zeros(2, 2, 6, 6))
    with pytest.raises(DataError, match="every activation is 0"):
        module.start_grids()
    with pytest.raises(DataError, match="NaN"):
        module(torch.full((2, 2, 6, 6), torch.nan))


def test_a_matrix_product_of_tokens_is_a_layer_too():
    make = helper.make_node
    nodes = [
        make("MatMul", ["image", "w1"], ["a"]),
        make("Gelu", ["a"], ["b"]),
        make("MatMul", ["b", "w2"], ["c"]),
        make("ReduceMean", ["c", "axes"], ["logits"], keepdims=0),
    ]
    constants = {"w1": floats(6, 8), "w2": floats(8, 3), "axes": np.array([1, 2])}
    body = helper.make_graph(
        nodes,
        "tokens",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["batch", 2, 6, 6])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", 3])],
        [numpy_helper.from_array(v, k) for k, v in constants.items()],
    )
    model = helper.make_model(body, opset_imports=[helper.make_opsetid("", 20)], ir_version=9)
    work, module, images, before = fake(model)
    assert [layer.axis for layer in work.plan.layers] == [1, 1]
    assert module.learned("w1").scale.shape == (8,)
    module.train()(images).pow(2).sum().backward()
    assert all(module.constant(name).grad.abs().max() > 0 for name in ("w1", "w2"))
    assert (module(images) - before).abs().max() < 0.1 * before.abs().max()


def test_a_bias_is_rounded_as_int32_will_hold_it_with_room_to_spare():
    model = residual(with_norm=False)
    for tensor in model.graph.initializer:
        if tensor.name == "w1":
            values = numpy_helper.to_array(tensor).copy()
            values[0] *= 1e-20
            tensor.CopyFrom(numpy_helper.from_array(values, "w1"))
    work, module, _, _ = fake(model)
    layer = work.plan.layers[0]
    grids = module.grids()
    unit = np.float64(grids["image"].scale) * grids["w1"].scale
    rounded = module._rounded_bias(layer)
    integers = rounded.detach().numpy() / unit
    np.testing.assert_allclose(integers, np.rint(integers), rtol=1e-6)
    assert np.abs(integers).max() < 2**31 and abs(integers[0]) > 2**29
    rounded.sum().backward()
    assert module.constant("b1").grad.tolist() == [1.0, 1.0, 1.0, 1.0]
    module.learned("w1").scale.data.fill_(0.5)
    assert not torch.allclose(module._rounded_bias(layer), module.constant("b1"), atol=1e-3)


def test_a_bias_that_grows_and_steps_that_shrink_in_training_stay_within_int32():
    work, module, _, _ = fake(residual(with_norm=False))
    layer = work.plan.layers[0]
    with torch.no_grad():
        module.constant("b1").mul_(1e5)
        module.learned("image").scale.mul_(0.02)
        module.learned("w1").scale.fill_(-1.0)
    _after_step(1)(module)
    grids = module.grids()
    unit = np.float64(grids["image"].scale) * grids["w1"].scale
    integers = module._rounded_bias(layer).detach().numpy() / unit
    assert (unit > 0).all() and 2**29 < np.abs(integers).max() < 2**31


# --- the file ---


def exported(work, module):
    """The file that the trained module becomes, and the weights in it."""
    grids = module.grids()
    activations = {name: grids[name] for name in set(work.plan.tensors.values())}
    weights = {}
    for layer in work.plan.layers:
        grid = grids[layer.weight]
        weights[layer.weight] = Rounded(grid.quantize(module.weight(layer).detach().numpy()), grid)
    model = onnx.ModelProto()
    model.CopyFrom(work.model)
    insert_qdq(model, work.plan, activations, weights)
    onnx.checker.check_model(model)
    return model, weights


def sequence():
    """image [N, 2, 6, 6] → sequences [N, 12, 6] → conv → relu = a; conv(a) + mean of a → mean → 3 logits."""
    make = helper.make_node
    nodes = [
        make("Reshape", ["image", "shape"], ["x"]),
        make("Conv", ["x", "w1"], ["c"]),
        make("Relu", ["c"], ["a"]),
        make("Conv", ["a", "w2"], ["d"]),
        make("GlobalAveragePool", ["a"], ["mean"]),
        make("Add", ["d", "mean"], ["sum"]),
        make("GlobalAveragePool", ["sum"], ["p"]),
        make("Flatten", ["p"], ["logits"]),
    ]
    constants = {"shape": np.array([-1, 12, 6]), "w1": floats(3, 12, 1) / 4, "w2": floats(3, 3, 1) / 20}
    body = helper.make_graph(
        nodes,
        "sequence",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["batch", 2, 6, 6])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", 3])],
        [numpy_helper.from_array(v, k) for k, v in constants.items()],
    )
    return helper.make_model(body, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)


def test_a_mean_that_the_file_takes_before_rounding_is_taken_there_in_training_too():
    model = sequence()
    work = start(as_variant(model))
    assert "mean" in work.plan.means and "a" in work.plan.tensors
    bits = dict.fromkeys(set(work.plan.tensors.values()), 4)
    weight_bits = {layer.weight: 8 for layer in work.plan.layers}
    base = open_graph(model.SerializeToString())
    module = FakeQuantized(work.model, base, work.plan, bits, weight_bits, True).eval()
    images = torch.from_numpy(floats(16, 2, 6, 6))
    with torch.no_grad():
        module(images)
        module.start_grids()
        ours = module(images).numpy()
    with get_runtime("onnxruntime").load(as_variant(exported(work, module)[0])) as session:
        theirs = session.run({"image": images.numpy()})["logits"]
    np.testing.assert_allclose(theirs, ours, atol=0.01 * ours.std())


def test_four_bits_are_stored_two_to_a_byte_and_clipped_where_uint8_would_go_on():
    x = 10 * floats(64, 2, 6, 6)  # beyond what calibration has seen
    work, module, _, _ = fake(residual(with_norm=False))
    model, weights = exported(work, module)
    stored = {t.name: t for t in model.graph.initializer}
    packed = stored["w2/int4"]
    assert packed.data_type == TensorProto.INT4 and len(packed.raw_data) == 4 * 4 * 9 // 2
    np.testing.assert_array_equal(numpy_helper.to_array(packed).astype(np.int8), weights["w2"].integers)
    logits = {}
    for name in ("onnxruntime", "openvino"):
        if not get_runtime(name).is_available().ok:
            continue
        with get_runtime(name).load(as_variant(model)) as session:
            logits[name] = session.run({"image": x})["logits"]
    with torch.no_grad():
        ours = module(torch.from_numpy(x)).numpy()
    errors = [np.abs(theirs - ours).mean() for theirs in logits.values()]
    assert max(errors) < 0.02 * ours.std()
    for node in model.graph.node:  # without its Clip, a tensor of 4 bits goes on to 255
        if node.op_type == "Clip" and node.input[2:]:
            node.input[2] = ""
    with get_runtime("onnxruntime").load(as_variant(model)) as session:
        assert np.abs(session.run({"image": x})["logits"] - ours).mean() > 3 * max(errors)
