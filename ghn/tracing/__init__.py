"""Trace a model into a computation graph.

``trace`` runs a skeleton of the model under a ``Recorder``; ``build`` turns the record into a graph by ``passes``, and
reads off it what each parameter is for (``roles``) and what attentions read (``channels``).
"""
