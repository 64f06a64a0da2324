"""Point-MAE: classifier, segmentation, pre-training and completion."""
