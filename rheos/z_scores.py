"""z-scores: what makes the opinions of different layers comparable on one set of candidates."""

import numpy as np

from rheos.state import Float64s


def z_scores(scores: Float64s) -> Float64s:
    """(s - mean) / standard deviation over those that are numbers; 0 for the others and for
    scores that are all alike."""
    known = ~np.isnan(scores)
    if not known.all():
        out = np.zeros(len(scores))
        out[known] = z_scores(scores[known])
        return out
    if not len(scores):
        return scores
    centred = scores - scores.mean()
    spread = float(np.sqrt(centred @ centred / len(scores)))
    return centred / spread if spread > 0 else np.zeros(len(scores))
