"""Human pose estimation with stacked hourglass networks, trained as in Peng, Tang et al., CVPR 2018.

Read it in this order, copy it and change it: config, model, losses, data, augmentation, checkpoints, progress, training,
tables, evaluation, comparison.
"""
