"""The one loop that draws codes from a prior, and what it is made of. Nothing here knows of pipelines."""
