"""Chapter 5: where the curve peaks."""
