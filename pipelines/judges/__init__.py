"""Who gives scores to pictures: the likelihood, the pipeline's own reranker, any CLIP. None knows of pipelines."""
