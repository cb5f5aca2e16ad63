"""Unimodal encoders f_m: one module per family, each imported only when it is asked for."""
