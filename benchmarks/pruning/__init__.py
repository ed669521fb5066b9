"""What labkit's pruning reaches, in milliseconds and in points of accuracy: `python -m benchmarks.pruning`."""

RUNTIMES = ("onnxruntime", "openvino")
BATCH_SIZES = (1, 32)
SEEDS = (0, 1, 2)
