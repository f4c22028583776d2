"""Chapter 10: the CSNR of real features."""
