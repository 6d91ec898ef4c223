"""Retrievers that need a neural network; `search_env.retrieval` finds them as installed plug-ins."""
