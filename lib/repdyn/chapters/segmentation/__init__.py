"""Chapter 12: segmentation."""
