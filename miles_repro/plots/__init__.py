"""Figures from plain numbers: no records, no files of ours, no global matplotlib state.

Colours are Okabe and Ito's, safe for colour-blind readers; lines and points carry their names.
"""
