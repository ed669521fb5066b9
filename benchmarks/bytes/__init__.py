"""LeNet in as few bytes as it takes, on MNIST: `python -m benchmarks.bytes`."""
