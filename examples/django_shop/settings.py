"""Settings of the shop: what has to do with sessions stands first, the rest is as Django would have it anywhere."""

import os
from pathlib import Path

NODES = os.environ.get("MSM_FAST_NODES")  # "n1:10.0.0.1:11211,n2:10.0.0.2:11211"; none: in this process only
ROUTE = os.environ.get("MSM_FAST_ROUTE")  # this worker's name, where the balancer goes by it

# A cart that cannot be reached is answered by 503, not by an empty one.
NON_STICKY = {"nodes": NODES, "on_cluster_lost": "error"}
STICKY = {**NON_STICKY, "sticky": True, "route": ROUTE, "backup": "sync"}

MSM_FAST = STICKY if ROUTE else NON_STICKY
SESSION_ENGINE = "msm_fast.integrations.django"
SESSION_COOKIE_SECURE = CSRF_COOKIE_SECURE = False  # True where the shop is served by https
INSTALLED_APPS = ["django.contrib.contenttypes", "django.contrib.auth", "msm_fast.integrations.django"]
MIDDLEWARE = [
    "msm_fast.integrations.django.SessionMiddleware",  # where Django's SessionMiddleware stands elsewhere
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
]

HERE = Path(__file__).parent
SECRET_KEY = os.environ.get("SHOP_SECRET_KEY", "known to everybody: for trying it out only")
ALLOWED_HOSTS = ["127.0.0.1", "localhost"]
ROOT_URLCONF = "examples.django_shop.urls"
WSGI_APPLICATION = "examples.django_shop.wsgi.application"
TEMPLATES = [{"BACKEND": "django.template.backends.django.DjangoTemplates", "DIRS": [HERE / "templates"]}]
# Of the customers and their passwords; no session is ever in it.
DATABASES = {
    "default": {"ENGINE": "django.db.backends.sqlite3", "NAME": os.environ.get("SHOP_DATABASE", HERE / "shop.sqlite3")}
}
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
USE_TZ = True
LOGGING = {
    "version": 1,
    "disable_existing_loggers": False,
    "handlers": {"console": {"class": "logging.StreamHandler"}},
    "root": {"handlers": ["console"], "level": "WARNING"},
}
