"""Hinton's experiments on MNIST, again: `python -m benchmarks.distillation`."""
