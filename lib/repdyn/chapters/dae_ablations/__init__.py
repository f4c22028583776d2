"""Chapter 15: repairs of a DAE of one level."""
