"""The network as nodes: one module for each kind of layer, a rendering of the config as in `phi4.model`."""
