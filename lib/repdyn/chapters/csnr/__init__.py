"""Chapter 4: the CSNR."""
