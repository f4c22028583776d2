"""The theory: the noisy MoLRG, its CSNR, fitting of subspaces, and denoisers made of a data set."""
