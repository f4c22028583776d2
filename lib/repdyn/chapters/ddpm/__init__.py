"""Chapter 6: a DDPM that learns a noisy MoLRG."""
