"""Blends: how several layers' opinions on candidates become one order, learned from what came."""
