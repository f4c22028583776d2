"""Chapter 9: accuracy against noise level."""
