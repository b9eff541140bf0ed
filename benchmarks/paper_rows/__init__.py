"""The rows of benchmarks/paper_tables.py, a file each; ``ROW`` is the row."""
