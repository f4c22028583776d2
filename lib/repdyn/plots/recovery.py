"""Figures of the chapter on recovering the subspaces."""
