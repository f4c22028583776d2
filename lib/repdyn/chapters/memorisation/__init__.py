"""Chapter 16: models that memorise."""
