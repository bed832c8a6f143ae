"""The sections of the report about brokers: the same parts, with the queue kept outside the database.

Each section is measured by a process of its own, whose settings name that broker as the default one. Beside every
figure stands what the same server does for its bare client (:mod:`base`), or the database for a single row.
"""
