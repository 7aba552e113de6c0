"""Pseudonyms are stable under a key, differ between keys and kinds, and the key is kept from others."""

from __future__ import annotations

import hashlib
import hmac
import os
import stat
import uuid
from pathlib import Path

import pytest
from pydicom.uid import UID

from medtune.errors import DataError
from medtune.imaging.pseudonym import MAX_SHIFT_DAYS, Pseudonyms, default_key_file, load_key

KEY = bytes(range(32))
OTHER = bytes(range(1, 33))


def test_a_name_is_the_documented_hmac():
    expected = hmac.new(KEY, b"patient\x00P-17", hashlib.sha256).hexdigest()[:16]
    assert Pseudonyms(KEY).name("patient", "P-17") == expected


def test_names_differ_by_value_kind_and_key():
    names = [
        Pseudonyms(KEY).name("patient", "1"),
        Pseudonyms(KEY).name("patient", "2"),
        Pseudonyms(KEY).name("study", "1"),
        Pseudonyms(OTHER).name("patient", "1"),
    ]
    assert len(set(names)) == 4


@pytest.mark.parametrize("same", ["P1 ", " P1", "P1\0"])
def test_padding_makes_no_other_patient(same):
    assert Pseudonyms(KEY).name("patient", same) == Pseudonyms(KEY).name("patient", "P1")


def test_the_two_unicode_forms_of_a_name_are_one_patient():
    assert Pseudonyms(KEY).name("patient", "Ju\u0308rgen") == Pseudonyms(KEY).name("patient", "Jürgen")


def test_a_uid_is_valid_and_a_version_8_uuid():
    new = Pseudonyms(KEY).uid("1.2.840.113619.2.55")
    assert UID(new).is_valid
    assert len(new) <= 64
    number = uuid.UUID(int=int(new.removeprefix("2.25.")))
    assert number.version == 8
    assert number.variant == uuid.RFC_4122
    assert new == Pseudonyms(KEY).uid("1.2.840.113619.2.55\0")
    assert new != Pseudonyms(OTHER).uid("1.2.840.113619.2.55")


def test_every_patient_is_shifted_into_the_past_by_a_shift_of_their_own():
    shifts = {Pseudonyms(KEY).shift_days(str(patient)) for patient in range(500)}
    assert max(shifts) <= -1
    assert min(shifts) >= -MAX_SHIFT_DAYS
    assert len(shifts) > 400


def test_the_key_does_not_show():
    pseudonyms = Pseudonyms(KEY)
    assert KEY.hex() not in repr(pseudonyms)
    assert pseudonyms.fingerprint in repr(pseudonyms)
    assert pseudonyms.fingerprint != Pseudonyms(OTHER).fingerprint


def test_a_short_key_is_refused():
    with pytest.raises(ValueError, match="32"):
        Pseudonyms(b"secret")


def test_a_key_is_made_once_and_only_its_owner_reads_it(tmp_path):
    path = tmp_path / "deep" / "pseudonym.key"
    key = load_key(path, create=True)
    assert len(key) == 32
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert load_key(path, create=True) == key == load_key(path, create=False)
    assert os.listdir(path.parent) == ["pseudonym.key"]
    assert load_key(tmp_path / "another.key", create=True) != key


def test_no_key_is_made_unasked(tmp_path):
    with pytest.raises(DataError, match="no pseudonym key"):
        load_key(tmp_path / "key", create=False)
    assert not list(tmp_path.iterdir())


def test_data_beside_the_usual_key_are_told_to_move(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / ".config"))
    with pytest.raises(DataError, match="folder of its own"):
        load_key(default_key_file(), create=True, outside=[tmp_path])
    assert not (tmp_path / ".config").exists()


def test_a_key_inside_the_data_is_refused(tmp_path):
    data = tmp_path / "data"
    data.mkdir()
    (tmp_path / "link").symlink_to(data)
    for path in (data / "key", tmp_path / "link" / "sub" / "key", data / ".." / "data" / "key"):
        with pytest.raises(DataError, match="inside the data"):
            load_key(path, create=True, outside=[tmp_path / "elsewhere", data])
    assert not list(data.iterdir())
    assert load_key(tmp_path / "data.key", create=True, outside=[data])


def test_a_key_that_others_may_read_is_refused(tmp_path):
    path = tmp_path / "key"
    load_key(path, create=True)
    path.chmod(0o640)
    with pytest.raises(DataError, match="read by others"):
        load_key(path, create=False)


@pytest.mark.parametrize("content", [b"", b"secret\n", b"00" * 31, b"\xff" * 64])
def test_a_file_without_a_key_is_refused(tmp_path, content):
    path = tmp_path / "key"
    path.write_bytes(content)
    path.chmod(0o600)
    with pytest.raises(DataError, match="holds no pseudonym key"):
        load_key(path, create=True)


def test_the_default_place_is_the_users_configuration(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    assert default_key_file() == tmp_path / "medtune" / "pseudonym.key"
    monkeypatch.setenv("XDG_CONFIG_HOME", "relative")
    assert default_key_file() == Path.home() / ".config" / "medtune" / "pseudonym.key"
