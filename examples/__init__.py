"""A shop in Flask, in Django and in FastAPI; ``python -m examples`` starts one."""
