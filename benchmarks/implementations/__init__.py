"""What the benchmarks time: our code, that of others, and the least that the maths needs."""
