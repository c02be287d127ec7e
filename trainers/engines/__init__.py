"""Devices and hosts: the interface of an engine, TensorFlow and JAX."""
