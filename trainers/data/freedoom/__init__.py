"""The built-in data sets, rendered by the engine of the package `vizdoom`."""
