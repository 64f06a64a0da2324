"""Point-MAE for classification, segmentation, pre-training and completion."""
