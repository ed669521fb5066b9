"""Rounding that is learned: what matters to a layer's output (moments), and three ways to round by it."""
