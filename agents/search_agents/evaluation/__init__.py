"""Evaluation: methods scored on held-out questions, floors to beat, tables and plots."""
