"""Prepared data sets: readers for training, one preparer per data set."""
