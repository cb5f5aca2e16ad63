"""Fusion methods, one file each; ``base`` says what a fusion must give."""
