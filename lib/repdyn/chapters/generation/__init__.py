"""Chapter 11: generation against representation."""
