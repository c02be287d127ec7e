"""Predicts with a trained model: loading it, its inputs, its answers, overlays."""
