"""A pipeline as a service: OpenAI's `POST /v1/images/generations` over one decoding loop.

`python -m pipelines serve` (`command.py`) starts it. A request comes over a connection of `connections.py`, which
bounds how many there are and how long each takes, and passes `guards.py`: its id, its key, the limits on its body.
`app.py` checks it by `schemas.py`; `service.py` makes it an order (`orders.py`), whose pictures wait in `batching.py`
until `worker.py` paints them, those of any settings together. Needs `pip install 'armchair[serve]'`.
"""
