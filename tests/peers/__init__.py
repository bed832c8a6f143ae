"""``make bench-peers``: the same no-op work through other task queues and through ours, in one run on one machine.

A tool for development, neither part of the package nor of the test suite. Each queue lives in a virtual environment of
its own (:mod:`~tests.peers.environments`); what runs inside those environments is in ``adapters/``, which knows nothing
of the rest. :mod:`~tests.peers.cases` says what is compared with what, and with which settings.
"""
