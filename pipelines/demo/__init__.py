"""A page to paint on, here or as a Hugging Face Space: `python -m pipelines demo` (extra `[demo]`)."""
