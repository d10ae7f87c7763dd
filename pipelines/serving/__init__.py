"""A pipeline as a service: OpenAI's `POST /v1/images/generations` over one decoding loop.

`python -m pipelines serve` (`command.py`) starts it. A request passes `guards.py`: its key, the limits on its body.
`app.py` checks it by `schemas.py`; `service.py` makes it an order (`orders.py`), whose pictures wait in `batching.py`
until `worker.py` paints them, a batch of equal settings at a time. Needs `pip install 'armchair[serve]'`.
"""
