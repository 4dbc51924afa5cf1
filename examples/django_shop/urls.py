"""Where each view is."""

from django.urls import path

from examples.django_shop import views

urlpatterns = [
    path("", views.show, name="shop"),
    path("cart", views.cart, name="cart"),
    path("login", views.log_in, name="login"),
    path("logout", views.log_out, name="logout"),
]
