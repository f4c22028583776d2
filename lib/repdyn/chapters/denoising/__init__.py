"""Chapter 1: denoising."""
