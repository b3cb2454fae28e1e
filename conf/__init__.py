"""Compositions: what runs when nothing is chosen, and presets. Blocks are not configured here; the registry does that."""
