"""Django's tests of session backends and of its session middleware, with our store.

`python -m tests.suites.django_sessions` runs them. They come from Django's source package, whose folder `tests`
must be on the path.
"""

import sys

import django
from django.conf import settings
from django.test.runner import DiscoverRunner

if __name__ == "__main__":
    from tests.suites import django_settings

    settings.configure(
        INSTALLED_APPS=[
            "django.contrib.contenttypes",
            "django.contrib.auth",
            "django.contrib.sessions",
            "django.contrib.messages",
            "sessions_tests",
        ],
        **{name: getattr(django_settings, name) for name in dir(django_settings) if name.isupper()},
    )
    django.setup()
    sys.exit(bool(DiscoverRunner().run_tests(["tests.suites.django_sessions"])))

from django.test import SimpleTestCase, TestCase, override_settings
from sessions_tests import tests

from msm_fast.integrations.django import SessionStore


class SessionStoreTests(tests.SessionTestsMixin, SimpleTestCase):
    backend = SessionStore


@override_settings(SESSION_ENGINE="msm_fast.integrations.django")
class SessionMiddlewareTests(tests.SessionMiddlewareTests, TestCase):
    pass
