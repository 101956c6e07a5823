"""Steps of a post-processing chain, one file a family; see `vesuvius.postprocess.chain`."""
