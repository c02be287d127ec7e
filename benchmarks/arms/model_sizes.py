"""What the models of every package are built with."""

NUM_CLASSES = 1000
#: Width, heads and width of the MLP; twelve blocks and patches of 16x16 throughout.
SIZES = {"s": (384, 6, 1536), "b": (768, 12, 3072)}
