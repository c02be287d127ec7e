"""Products of a Vision Transformer by hand."""


def vit_macs(
    tokens: list[int], patches: int, width: int, mlp_dim: int, patch_values: int, num_classes: int
) -> int:
    """Returns the multiply-accumulates of a ViT.

    Args:
        tokens: Of each block, with those in front.
        patches: Patches that are embedded.
        width: Channels.
        mlp_dim: Hidden units of each block.
        patch_values: Numbers in a patch.
        num_classes: Outputs of a linear classifier of one vector; 0: there is none.
    """
    projections = sum(4 * count * width**2 for count in tokens)
    attention = sum(2 * count**2 * width for count in tokens)
    hidden = sum(2 * count * width * mlp_dim for count in tokens)
    embedding = patches * patch_values * width
    return embedding + projections + attention + hidden + width * num_classes


def token_learner_macs(positions: int, width: int, num_tokens: int, hidden: int = 64) -> int:
    """Returns those of a TokenLearnerV11: two layers for each position, and the sums."""
    return positions * (hidden * (width + num_tokens) + num_tokens * width)
