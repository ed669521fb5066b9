"""Training on the grid: rounding with a gradient, and a graph that rounds as its file will."""
