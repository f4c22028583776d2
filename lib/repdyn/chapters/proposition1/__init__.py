"""Chapter 3: the optimal denoiser."""
