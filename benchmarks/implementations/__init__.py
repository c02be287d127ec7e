"""What the benchmarks time: our code, that of others, and the least that the maths needs.

Each function makes one `benchmarks.worker.Arm` in a process of its own. A file imports the
frameworks of its arms and no others.
"""
