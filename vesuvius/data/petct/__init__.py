"""Paired CT and PET slices with lesion masks: layouts, split, phantom, data set."""
