"""Runs programs for real: this machine's kernels, a team of pinned threads, and a stopwatch around every task."""
