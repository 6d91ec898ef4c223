"""Agents, engines, the learner and the command search-env."""
