"""Balancing strategies, one file each; ``base`` says when each hook is called."""
