from __future__ import annotations

import stat
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from pydantic import SecretStr

from api import vault
from api.settings import Settings
from api.vault import SecretUnreadable, Vault, VaultUnusable, open_vault

SECRET = "whsec_AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8="
OLD, NEW = vault.new_key(), vault.new_key()


def settings_for(folder: Path, *keys: str) -> Settings:
    given = SecretStr(",".join(keys)) if keys else None
    return Settings(data_dir=folder, secret_keys=given)


def test_what_is_sealed_can_be_opened_and_says_nothing(tmp_path: Path) -> None:
    box = open_vault(settings_for(tmp_path, NEW))
    sealed = box.seal(SECRET)
    assert sealed.startswith("sealed:")
    assert SECRET not in sealed
    assert box.open(sealed) == SECRET
    assert box.seal(SECRET) != sealed
    assert not list(tmp_path.iterdir())


def test_what_was_stored_plain_can_be_read_and_wants_sealing(tmp_path: Path) -> None:
    box = open_vault(settings_for(tmp_path, NEW))
    assert box.open(SECRET) == SECRET
    assert not box.is_current(SECRET)
    # No secret is none, however often it is sealed.
    assert (box.seal(""), box.open("")) == ("", "")
    assert box.is_current("")


def test_rotation(tmp_path: Path) -> None:
    before = open_vault(settings_for(tmp_path, OLD)).seal(SECRET)
    both = open_vault(settings_for(tmp_path, NEW, OLD))
    assert both.open(before) == SECRET
    assert not both.is_current(before)
    after = both.seal(both.open(before))
    assert both.is_current(after)
    new = open_vault(settings_for(tmp_path, f" {NEW} ", ""))
    assert new.open(after) == SECRET
    with pytest.raises(SecretUnreadable, match="GEOROUTER_SECRET_KEYS") as refused:
        new.open(before)
    assert before not in str(refused.value)


def test_a_key_file_is_made_once_and_for_its_owner(tmp_path: Path) -> None:
    folder = tmp_path / "new"
    with ThreadPoolExecutor(8) as threads:
        boxes = list(threads.map(lambda _: open_vault(settings_for(folder)), range(16)))
    [file] = folder.iterdir()
    assert file.name == "secret.key"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    sealed = boxes[0].seal(SECRET)
    assert {box.open(sealed) for box in boxes} == {SECRET}
    # From the file to the setting: what was sealed stays readable.
    assert open_vault(settings_for(folder, NEW)).open(sealed) == SECRET
    assert not open_vault(settings_for(folder, NEW)).is_current(sealed)


@pytest.mark.parametrize("key", ["hunter2-hunter2", "", ",", "é", f"{NEW},hunter2"])
def test_what_is_no_key_is_refused_and_not_shown(tmp_path: Path, key: str) -> None:
    with pytest.raises(VaultUnusable, match="GEOROUTER_SECRET_KEYS") as refused:
        open_vault(settings_for(tmp_path, key))
    assert "hunter2" not in str(refused.value)
    assert NEW not in str(refused.value)


@pytest.mark.parametrize("content", ["", "hunter2", "é", f"{NEW}\nhunter2"])
def test_a_key_file_with_something_else_is_refused(tmp_path: Path, content: str) -> None:
    (tmp_path / "secret.key").write_text(content)
    with pytest.raises(VaultUnusable, match=r"secret\.key") as refused:
        open_vault(settings_for(tmp_path))
    assert "hunter2" not in str(refused.value)


def test_a_folder_that_cannot_be_used(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(VaultUnusable, match="set GEOROUTER_SECRET_KEYS"):
        open_vault(settings_for(tmp_path / "file"))
    open_vault(settings_for(tmp_path / "file", NEW))


def test_keys_are_not_shown() -> None:
    settings = Settings(secret_keys=SecretStr(NEW), smtp_password=SecretStr("x-pw"), smtp_user="u")
    shown = f"{settings!r} {settings} {Vault([NEW], where='x')!r}"
    assert NEW not in shown
    assert "x-pw" not in shown


def test_what_is_signed_is_told_from_what_is_not() -> None:
    box = Vault([NEW], where="here")
    made = box.sign("a photo", purpose="link")
    assert len(made) == 43
    assert box.is_signed("a photo", made, purpose="link")
    for text, signature, purpose in (
        ("another photo", made, "link"),
        ("a photo", made[:-1] + "_", "link"),
        ("a photo", "", "link"),
        ("a photo", "ü\ud800", "link"),
        ("a photo", made, "another purpose"),
    ):
        assert not box.is_signed(text, signature, purpose=purpose)


def test_a_newer_key_signs_and_the_older_one_still_counts() -> None:
    before, during, after = (Vault(keys, where="here") for keys in ([OLD], [NEW, OLD], [NEW]))
    made = before.sign("a photo", purpose="link")
    assert during.is_signed("a photo", made, purpose="link")
    assert not after.is_signed("a photo", made, purpose="link")
    assert during.sign("a photo", purpose="link") == after.sign("a photo", purpose="link")
