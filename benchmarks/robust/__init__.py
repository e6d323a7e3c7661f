"""What ``benchmarks/robustness.py`` throws at the library: generated networks, damaged checkpoints, kills."""
