"""Sweeps over the fields of a training recipe with Ray Tune."""
