"""Settings for Django's own test programs: its usual ones, with sessions in msm_fast.

MSM_FAST_NODES: the nodes. MSM_FAST_MIDDLEWARE=1: whoever names Django's session middleware gets msm_fast's.
"""

import os

from django.contrib.sessions import middleware

DATABASES = {
    "default": {"ENGINE": "django.db.backends.sqlite3"},
    "other": {"ENGINE": "django.db.backends.sqlite3"},
}
SECRET_KEY = "django_tests_secret_key"
PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]
DEFAULT_AUTO_FIELD = "django.db.models.AutoField"
USE_TZ = False

SESSION_ENGINE = "msm_fast.integrations.django"
MSM_FAST = {"nodes": os.environ["MSM_FAST_NODES"]}

if os.environ.get("MSM_FAST_MIDDLEWARE") == "1":
    from msm_fast.integrations.django.middleware import SessionMiddleware

    middleware.SessionMiddleware = SessionMiddleware
