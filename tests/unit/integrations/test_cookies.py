import pytest

from msm_fast import ConfigurationError
from msm_fast.integrations.cookies import CookieSettings, read_cookie, vary_by_cookie

ID = "0123456789abcdef0123456789abcdef-n1"
OTHER = "fedcba9876543210fedcba9876543210-n2"


@pytest.mark.parametrize(
    ("header", "value"),
    [
        ("", None),
        ("session=" + ID, ID),
        (f"a=b; session={ID}; c=d", ID),
        (f"a=b;session={ID}", ID),
        (f"xsession={ID}", None),
        (f"session=; session={ID}", ID),
        (f"session=no+id; session={ID}; session={OTHER}", ID),
        ("session=garbage", "garbage"),
        ('session="abc\\015\\012set x 0 60 1\\015\\012Z"', '"abc\\015\\012set x 0 60 1\\015\\012Z"'),
        ("session", None),
        (";;=;session==;", "="),
        (f"session \t=\t {ID}", ID),
    ],
)
def test_the_first_cookie_that_is_an_id_counts_and_nothing_is_unquoted(header: str, value: str | None) -> None:
    assert read_cookie(header, "session") == value


@pytest.mark.parametrize("character", ["\xa0", "\x85", "\x1c", "\x1f", "\x0b", "\x0c"])
def test_a_name_that_a_browser_takes_for_another_is_another(character: str) -> None:
    """A browser guards names that begin with __Host-; under one of these a page of a sibling domain could send ours."""
    for name in (f"{character}__Host-session", f"__Host-session{character}"):
        assert read_cookie(f"{name}={OTHER}; __Host-session={ID}", "__Host-session") == ID


def test_the_defaults_are_the_safe_ones() -> None:
    assert CookieSettings().header(ID, is_https=False) == f"session={ID}; Path=/; HttpOnly; SameSite=Lax"
    assert CookieSettings().header(ID, is_https=True) == f"session={ID}; Path=/; Secure; HttpOnly; SameSite=Lax"


def test_every_attribute_can_be_set() -> None:
    cookie = CookieSettings(
        name="__Secure-sid",
        path="/shop",
        domain="example.org",
        secure=True,
        http_only=False,
        same_site="None",
        max_age=3600,
        partitioned=True,
    )
    assert cookie.header(ID, is_https=False) == (
        f"__Secure-sid={ID}; Domain=example.org; Path=/shop; Max-Age=3600; Secure; SameSite=None; Partitioned"
    )


def test_an_attribute_that_is_not_wanted_is_not_said() -> None:
    cookie = CookieSettings(http_only=False, same_site=None)
    assert cookie.header(ID, is_https=False) == f"session={ID}; Path=/"


def test_a_deletion_has_the_same_name_path_and_domain() -> None:
    cookie = CookieSettings(path="/shop", domain="example.org")
    assert cookie.deletion(is_https=False) == (
        "session=; Domain=example.org; Path=/shop; Max-Age=0; HttpOnly; SameSite=Lax; "
        "Expires=Thu, 01 Jan 1970 00:00:00 GMT"
    )


@pytest.mark.parametrize(
    "settings",
    [
        {"name": "se ssion"},
        {"name": ""},
        {"path": "/a;b"},
        {"path": "/a\r\nX: y"},
        {"path": None},
        {"path": ""},
        {"path": "shop"},
        {"domain": "a;b"},
        {"domain": b"example.org"},
        {"domain": "example.org example.com"},
        {"secure": "yes"},
        {"http_only": None},
        {"partitioned": 1},
        {"rolling": "no"},
        {"max_age": "600"},
        {"max_age": 0},
        {"max_age": -5},
        {"max_age": 1.5},
        {"max_age": True},
        {"same_site": "lax"},
        {"same_site": "None", "secure": False},
        {"name": "__Host-sid", "domain": "example.org"},
        {"name": "__Host-sid", "path": "/shop"},
    ],
)
def test_a_cookie_that_no_browser_would_take_is_refused(settings: dict[str, object]) -> None:
    with pytest.raises(ConfigurationError):
        CookieSettings(**settings)  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["__Host-sid", "__Secure-sid"])
def test_a_prefixed_name_is_always_secure(name: str) -> None:
    assert "; Secure" in CookieSettings(name=name).header(ID, is_https=False)


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ([], [("Vary", "Cookie")]),
        ([("Vary", "Accept-Encoding")], [("Vary", "Accept-Encoding, Cookie")]),
        ([("Vary", "Accept"), ("X", "y"), ("vary", "Range")], [("X", "y"), ("Vary", "Accept, Range, Cookie")]),
        ([("vary", "accept, cookie")], [("vary", "accept, cookie")]),
        ([("Vary", "*")], [("Vary", "*")]),
    ],
)
def test_a_response_varies_by_cookie_once(before: list[tuple[str, str]], after: list[tuple[str, str]]) -> None:
    vary_by_cookie(before, sets_cookie=False)
    assert before == after


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ([], ["no-store"]),
        ([("Cache-Control", "public, max-age=60")], ["no-store"]),
        ([("cache-control", "private, max-age=60")], ["private, max-age=60"]),
        ([("cache-control", "max-age=60,No-Cache")], ["max-age=60,No-Cache"]),
        ([("cache-control", "max-age=60"), ("Cache-Control", "no-store")], ["max-age=60", "no-store"]),
        ([("cache-control", 'ext="a, b" , private')], ['ext="a, b" , private']),
        ([("cache-control", 'public, max-age=600, no-cache="x-foo"')], ["no-store"]),
        ([("cache-control", 'max-age=600, private="x-foo"')], ["no-store"]),
        ([("cache-control", "public, max-age=60, x-private")], ["no-store"]),
        ([("cache-control", "public, non-private=1")], ["no-store"]),
        ([("cache-control", 'public, ext="a, private, b"')], ["no-store"]),
        ([("cache-control", 'public, ext="a \\", private')], ["no-store"]),
    ],
)
def test_a_response_that_sets_the_cookie_is_kept_out_of_shared_caches(
    before: list[tuple[str, str]], after: list[str]
) -> None:
    vary_by_cookie(before, sets_cookie=True)
    assert [value for key, value in before if key.lower() == "cache-control"] == after
