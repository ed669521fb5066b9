"""What a grid is, and how a network computes on one: in few bits, in 16-bit floats, and in nothing but integers."""
