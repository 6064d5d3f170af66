"""Questions beyond Table I: warm-up, depth by dataset, other networks, compression, reuse of a depth, speed."""
