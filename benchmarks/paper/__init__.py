"""The experiments of Peng, Tang et al., CVPR 2018: tables, figures, and arms that the example does not have."""
