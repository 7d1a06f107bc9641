"""The environment of recommend."""

import pytest

from chassis.call import Reply
from chassis.environment import SettingsError
from functions.recommend.settings import Settings
from recsys.contracts import wire


def test_a_bare_name_of_a_function_gets_the_namespace_of_the_pod(tmp_path, monkeypatch):
    """All addresses of functions do, so that the same manifests work in any namespace."""
    (tmp_path / "resolv.conf").write_text("search shop.svc.cluster.local svc.cluster.local cluster.local\n")
    monkeypatch.setattr("chassis.wake.RESOLVER", tmp_path / "resolv.conf")
    urls = {"EXTRACT_FEATURES_URL": "http://a", "RANK_ITEMS_URL": "http://b:80", "WAKE_URLS": "http://a http://c.d"}
    settings = Settings.from_env({"AUTH": "off", **urls})
    assert settings.extract_features_url == "http://a.shop.svc"
    assert settings.rank_items_url == "http://b.shop.svc:80"
    assert settings.wake_urls == ("http://a.shop.svc", "http://c.d")


def test_settings_require_both_hop_urls():
    """The URLs of both hops must be set and valid."""
    with pytest.raises(SettingsError) as caught:
        Settings.from_env({"AUTH": "off", "RANK_ITEMS_URL": "rank-items:80"})
    assert [fault.partition(" ")[0] for fault in caught.value.faults] == ["EXTRACT_FEATURES_URL", "RANK_ITEMS_URL"]
    with pytest.raises(SettingsError):
        Settings.from_env({"AUTH": "off", "RANK_ITEMS_URL": "http://a:port", "EXTRACT_FEATURES_URL": "http://a"})
    with pytest.raises(SettingsError, match="HOP_HEDGING must be 1 or 0"):
        Settings.from_env(
            {"AUTH": "off", "RANK_ITEMS_URL": "http://b", "EXTRACT_FEATURES_URL": "http://a", "HOP_HEDGING": "maybe"}
        )


def test_settings_refuse_an_address_that_cannot_be_woken():
    """Every address in WAKE_URLS is checked when the function starts."""
    urls = {"AUTH": "off", "RANK_ITEMS_URL": "http://b", "EXTRACT_FEATURES_URL": "http://a"}
    assert Settings.from_env(urls | {"WAKE_URLS": "http://a http://b"}).wake_urls == ("http://a", "http://b")
    with pytest.raises(SettingsError, match="WAKE_URLS must hold http"):
        Settings.from_env(urls | {"WAKE_URLS": "http://a rank-items:80"})


def test_pages_of_other_origins_may_read_the_id_of_an_exposure():
    """A page needs the header to report what a user did."""
    env = {"AUTH": "off", "EXTRACT_FEATURES_URL": "http://a", "RANK_ITEMS_URL": "http://b"}
    cors = Settings.from_env({**env, "CORS_ORIGINS": "https://shop.example"}).cors
    assert cors is not None
    allowed = dict(cors.allow(Reply(b""), [(b"origin", b"https://shop.example")]).headers)
    assert wire.EXPOSURE_HEADER in allowed[b"access-control-expose-headers"].split(b", ")
