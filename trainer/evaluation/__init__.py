"""How good a recommender is: metrics, the served path, the prequential protocol, splits."""
