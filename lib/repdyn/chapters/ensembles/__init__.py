"""Chapter 13: ensembles across noise levels."""
