"""Chapter 7: recovery of subspaces."""
