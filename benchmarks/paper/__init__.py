"""The experiments of Peng, Tang et al., CVPR 2018: the tables, the figures, and the arms that the example leaves out."""
