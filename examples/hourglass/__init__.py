"""Human pose estimation with stacked hourglass networks, the experiments of Peng, Tang et al., CVPR 2018.

An example, not part of the library: model, losses, data, training and report, each in a file of its own.
"""
