import pytest

from msm_fast.cli.demo.processes import DemoError, find_memcached


@pytest.fixture
def server(tmp_path):
    def make(answer):
        path = tmp_path / "memcached"
        path.write_text(f"#!/bin/sh\necho '{answer}'\n")
        path.chmod(0o755)
        return path

    return make


@pytest.mark.parametrize(
    "answer", ["memcached 1.6.18", "memcached 1.6.45", "memcached 1.10.0_beta1", "memcached 2.0.0"]
)
def test_a_server_that_is_new_enough_is_found(server, tmp_path, answer):
    path = server(answer)
    assert find_memcached(str(tmp_path)) == str(path)


@pytest.mark.parametrize("answer", ["memcached 1.6.17", "memcached 1.5.22", ""])
def test_a_server_that_is_too_old_is_refused_with_its_path(server, tmp_path, answer):
    path = server(answer)
    with pytest.raises(DemoError, match=rf"^{path} is .*1\.6\.18 or newer\.$"):
        find_memcached(str(tmp_path))


def test_no_server_is_one_sentence_that_says_what_to_install(tmp_path):
    with pytest.raises(DemoError, match=r"^No memcached server was found: install memcached 1\.6\.18 or newer[^.]*\.$"):
        find_memcached(str(tmp_path))
