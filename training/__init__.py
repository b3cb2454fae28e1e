"""Lightning on top of the blocks: objectives, data, optimizers, and one run from start to end."""
