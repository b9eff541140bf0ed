"""What any model that reads a sequence has to beat: simple, tuned, and each in a file of its own.

A baseline is fitted on sequences, each an array of item numbers (0 … N - 1), oldest first, and its
``scores(history)`` gives every item's score (N,) after such an array. None of them looks at users.
"""
