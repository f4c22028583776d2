"""Chapter 14: one model, or one for every level."""
