"""Trace a model into a computation graph, and turn the graph into features."""
