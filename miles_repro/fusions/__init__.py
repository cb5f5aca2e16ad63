"""Fusion methods, one file each; ``base`` says what a fusion must give.

concat, sum, late, transformer and lowrank take any number of modalities; film and gated take two.
"""
