"""The shop in Django, a whole project."""
