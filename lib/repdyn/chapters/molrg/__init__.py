"""Chapter 2: the noisy MoLRG."""
