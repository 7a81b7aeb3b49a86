"""Human pose estimation with stacked hourglass networks, trained as in Peng, Tang et al., CVPR 2018.

Read, copied and changed from top to bottom: config, model, losses, data, augmentation, training, evaluation, comparison.
"""
