"""For a web server; ``runserver`` uses it too."""

import os

from django.core.wsgi import get_wsgi_application

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "election.settings")
application = get_wsgi_application()
