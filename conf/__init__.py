"""Compositions: what runs when nothing is chosen, and presets. What a block can be, the registry knows."""
