"""No page is fetched from an address that is not public, however its URL spells it."""

import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from search_env.errors import RetrieverError
from search_env.retrieval.online.guard import (
    BlockedURL,
    PageUnavailable,
    allowed_addresses,
    check_url,
    system_resolver,
)

PUBLIC = "93.184.216.34"
NOT_PUBLIC = """
    0.0.0.0 10.0.0.1 10.255.255.255 100.64.0.1 100.127.255.254 127.0.0.1 127.1.2.3 169.254.169.254 172.16.0.1
    172.31.255.255 192.0.0.8 192.0.0.9 192.0.2.1 192.88.99.1 192.168.0.1 198.18.0.1 198.51.100.1 203.0.113.1 224.0.0.1
    239.255.255.250 240.0.0.1 255.255.255.255
    :: ::1 ::127.0.0.1 ::8.8.8.8 ::ffff:127.0.0.1 ::ffff:169.254.169.254 ::ffff:8.8.8.8 64:ff9b::7f00:1 64:ff9b::808:808
    64:ff9b:1::a00:1 100::1 2001::1 2001:0:7f00:1:: 2001:20::1 2001:db8::1 2002:7f00:1::1 2002:808:808::1 3fff::1
    4000::1 5f00::1 fc00::1 fd00:ec2::254 fe80::1 fe80::1%eth0 2606:4700::1%eth0 fec0::1 ff02::1 ff0e::1
""".split()
FORBIDDEN_URLS = """
    http://127.1/ http://127.0.1/ http://0x7f000001/ http://0x7f.1/ http://2130706433/ http://0177.0.0.1/ http://0/
    http://0x/ http://017700000001/ http://1.2.3.4.5/ http://foo.0x7f/ http://127.0.0.1:6379/ http://93.184.216.34:22/
    http://en.wikipedia.org:8080/ https://en.wikipedia.org:22/ file:///etc/passwd gopher://en.wikipedia.org/
    ftp://en.wikipedia.org/ data:text/html,hi javascript:alert(1) dict://x:11211/ jar:http://x/ //en.wikipedia.org/
    en.wikipedia.org http:/// http:// https://?q http://user@en.wikipedia.org/ http://user:word@en.wikipedia.org/
    http://:word@en.wikipedia.org/ http://en.wikipedia.org\\@127.0.0.1/ http://[::1
    http://[::1]:9200/ http://127.0.0.1%00.wikipedia.org/ http://-wikipedia.org/ http://a..b/ http://.../
    http://en.wikipedia.org:99999/ http://en.wikipedia.org:x/
""".split()


def no_resolver(host, port):
    raise AssertionError("an address is not resolved")


@pytest.mark.parametrize("address", NOT_PUBLIC)
def test_an_address_that_is_not_public_is_refused_however_it_is_come_by(address):
    with pytest.raises(BlockedURL, match="not public"):
        allowed_addresses("name.example", 443, lambda *_: [address])
    with pytest.raises(BlockedURL, match="not public"):
        allowed_addresses(address, 443, no_resolver)


@pytest.mark.parametrize("address", ["8.8.8.8", PUBLIC, "2606:4700:4700::1111", "2a00:1450:4001::1"])
def test_a_public_address_is_allowed(address):
    assert allowed_addresses("name.example", 443, lambda *_: [address, address]) == (address,)
    assert allowed_addresses(address, 443, no_resolver) == (address,)


@given(st.ip_addresses(v=4))
def test_no_address_that_carries_another_is_allowed(inner):
    """A gateway would unpack it, and what comes out was never judged."""
    bits = int(inner)
    for prefix, shift in (("::", 0), ("::ffff:0:0", 0), ("64:ff9b::", 0), ("2002::", 80), ("2001::", 64)):
        carrier = ipaddress.IPv6Address(int(ipaddress.IPv6Address(prefix)) | bits << shift)
        with pytest.raises(BlockedURL):
            allowed_addresses("name.example", 443, lambda *_, carrier=carrier: [str(carrier)])


@given(st.lists(st.sampled_from(NOT_PUBLIC), min_size=1), st.lists(st.just(PUBLIC)), st.randoms())
def test_a_single_address_that_is_not_public_is_enough(bad, good, random):
    addresses = bad + good
    random.shuffle(addresses)
    with pytest.raises(BlockedURL):
        allowed_addresses("name.example", 443, lambda *_: addresses)


@pytest.mark.parametrize("found", [[], OSError("Name or service not known"), UnicodeError("label too long")])
def test_a_name_without_an_address_is_a_page_that_cannot_be_read(found):
    def resolver(host, port):
        if isinstance(found, Exception):
            raise found
        return found

    with pytest.raises(PageUnavailable, match="does not resolve"):
        allowed_addresses("name.example", 443, resolver)


@pytest.mark.parametrize("url", FORBIDDEN_URLS)
def test_a_url_that_says_by_itself_that_it_is_not_allowed_is_refused(url):
    with pytest.raises(BlockedURL) as caught:
        check_url(url)
    assert "word" not in str(caught.value)


@given(st.text())
def test_any_text_is_a_url_or_is_refused(text):
    for url in (text, f"http://{text}", f"https://en.wikipedia.org/{text}"):
        try:
            parsed = check_url(url)
        except BlockedURL:
            continue
        assert parsed.scheme in ("http", "https")
        assert not parsed.userinfo
        assert parsed.port in (None, 80, 443)


@pytest.mark.parametrize(
    ("url", "host", "target"),
    [
        ("https://en.wikipedia.org/wiki/Oslo?a=b#Name", b"en.wikipedia.org", b"/wiki/Oslo?a=b"),
        ("HTTP://EN.Wikipedia.org:80/wiki/Œuvre", b"en.wikipedia.org", b"/wiki/%C5%92uvre"),
        ("https://пример.рф:443", b"xn--e1afmkfd.xn--p1ai", b"/"),
        ("https://a_b.example.", b"a_b.example.", b"/"),
        ("http://93.184.216.34/", b"93.184.216.34", b"/"),
    ],
)
def test_the_url_of_a_public_page_is_read(url, host, target):
    parsed = check_url(url)
    assert (parsed.raw_host, parsed.raw_path) == (host, target)


@pytest.mark.parametrize("host", ["localhost", "localhost."])
def test_the_name_of_this_machine_is_refused_for_what_the_system_resolves_it_to(host):
    with pytest.raises(PageUnavailable):  # Some systems do not resolve the name with a dot.
        allowed_addresses(host, 80, system_resolver)


def test_a_blocked_url_is_an_error_of_the_retriever():
    assert issubclass(BlockedURL, PageUnavailable)
    assert issubclass(PageUnavailable, RetrieverError)
