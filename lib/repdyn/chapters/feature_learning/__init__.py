"""Chapter 8: diffusion against classification."""
