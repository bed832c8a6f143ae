"""What ``manage.py taskq bench`` is made of.

The command (:mod:`django_taskq.management.verbs.bench`) makes a scratch database and a settings module that names it
(:mod:`scratch`), and starts ``python -m django_taskq.bench`` with these settings: that process measures, and cannot
reach the project's rows. Only those settings install this package as an app. For each broker it does the same again,
with settings that name that broker (:mod:`depots`), under a prefix of the benchmark's own.
"""
