"""FAISS index, hot swap, retrieval, ranking, the query API and the web page."""
