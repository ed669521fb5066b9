"""Every dataset that labkit knows by name has four splits, a card, a checksum, and comes out the same each time."""

from __future__ import annotations

import gzip
import hashlib
import os
import shutil
from pathlib import Path

import numpy as np
import pytest

from labkit.data import DATASETS, SPLITS, card, load_dataset, location, registry
from labkit.data import named as named_module
from labkit.errors import ConfigError, DataError

SIZES = {
    "digits": (1123, 280, 225, 449),
    "fashion-mnist": (55000, 512, 5000, 10000),
    "mnist": (55000, 512, 5000, 10000),
}


def needs(name):
    if location(name) is None:
        if os.environ.get("CI") == "true":
            pytest.fail(f"{name} is missing, and under CI nothing is skipped")
        pytest.skip(f"{name} is not on this machine")


@pytest.mark.parametrize("name", DATASETS)
def test_it_has_four_splits_of_known_size_and_every_class_in_each(name):
    needs(name)
    dataset = load_dataset(name)
    assert tuple(len(dataset.split(split)) for split in SPLITS) == SIZES[name]
    for split in SPLITS:
        assert set(np.unique(dataset.split(split).target)) == set(range(len(dataset.labels)))
    assert dataset.checksum in registry()[name]["sha256"].values()
    assert len(dataset.card) > 200 and dataset.card == card(name)


@pytest.mark.parametrize("name", DATASETS)
def test_splits_do_not_share_samples_but_calibration_is_part_of_train(name):
    needs(name)
    dataset = load_dataset(name)

    def hashes(split):
        return [hashlib.sha1(image.tobytes()).digest() for image in dataset.split(split).inputs["image"]]

    train, calibration = hashes("train"), hashes("calibration")
    assert calibration == train[: len(calibration)]
    # A few images occur twice in the published sets; a leak would show as hundreds.
    assert len(set(hashes("validation")) & set(train)) <= 5
    assert len(set(hashes("test")) & set(train)) <= 60


def test_the_sizes_in_the_digits_card_are_the_real_ones():
    text = card("digits")
    for words in ("1,123 train", "280 are also the calibration", "225 validation", "449 test"):
        assert words in text


def test_an_unknown_name_suggests_the_nearest():
    with pytest.raises(DataError, match="did you mean 'fashion-mnist'"):
        load_dataset("fashion_mnist")


def test_an_unknown_split_suggests_the_nearest(digits):
    with pytest.raises(ConfigError, match="did you mean 'validation'"):
        digits.split("valid")


@pytest.fixture
def alone(tmp_path, monkeypatch):
    """No dataset can be found but in tmp_path/data; no download answers."""
    entry = dict(registry()["mnist"], download="http://127.0.0.1:9/")
    monkeypatch.setattr(named_module, "registry", lambda: {**registry(), "mnist": entry})
    monkeypatch.setenv("LABKIT_DATA_DIR", str(tmp_path / "data"))
    monkeypatch.setenv("LABKIT_CACHE_DIR", str(tmp_path / "cache"))
    return tmp_path


def test_missing_data_names_every_way_to_get_it(alone):
    with pytest.raises(DataError) as caught:
        load_dataset("mnist")
    for words in ("LABKIT_DATA_DIR", "train-images-idx3-ubyte.gz", "labkit data fetch mnist", "digits"):
        assert words in str(caught.value)
    assert not list((alone / "cache").rglob("*.gz"))


@pytest.mark.parametrize("fault", ["flipped", "truncated", "empty", "not gzip"])
def test_a_damaged_file_is_refused_and_named(fault, alone):
    folder = alone / "data" / "mnist"
    folder.mkdir(parents=True)
    good = gzip.compress(b"\x00\x00\x08\x03" + bytes(4000))
    bad = {"flipped": good, "truncated": good[:-20], "empty": b"", "not gzip": b"hello" * 100}[fault]
    for key in registry()["mnist"]["sha256"]:
        (folder / f"{key}.gz").write_bytes(bad)
    with pytest.raises(DataError, match="train-images-idx3-ubyte.gz"):
        load_dataset("mnist")


class Server:
    """A local web server that answers with `bodies` in turn, the last one for ever."""

    def __init__(self, bodies):
        import http.server
        import threading

        outer = self
        self.asked = 0

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self):
                body, claimed = bodies[min(outer.asked, len(bodies) - 1)]
                outer.asked += 1
                self.send_response(200)
                self.send_header("Content-Length", str(claimed))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *arguments):
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        self.url = f"http://127.0.0.1:{self.server.server_port}/"


@pytest.fixture
def served(alone, monkeypatch):
    """One file of a small dataset, served with the bodies that the test names."""
    data = b"\x00\x00\x08\x01" + (100).to_bytes(4, "big") + bytes(range(100))
    packed = gzip.compress(data)
    servers = []

    def start(*bodies):
        server = Server(bodies)
        servers.append(server)
        entry = {
            **registry()["mnist"],
            "download": server.url,
            "sha256": {"labels": hashlib.sha256(data).hexdigest()},
        }
        monkeypatch.setattr(named_module, "registry", lambda: {"mnist": entry})
        return server

    yield packed, data, start, alone / "cache" / "mnist"
    for server in servers:
        server.server.shutdown()


def test_a_download_is_verified_and_kept(served):
    packed, data, start, cache = served
    server = start((packed, len(packed)))
    assert named_module._verified("mnist", "labels") == data
    assert named_module._verified("mnist", "labels") == data
    assert server.asked == 1
    assert [path.name for path in cache.iterdir()] == ["labels.gz"]


def test_a_download_that_is_cut_is_tried_again(served):
    packed, data, start, _ = served
    server = start((packed[:20], len(packed)), (packed, len(packed)))
    assert named_module._verified("mnist", "labels") == data
    assert server.asked == 2


def test_a_flipped_download_never_reaches_the_cache(served):
    packed, data, start, cache = served
    start((gzip.compress(data[:-1] + b"!"), len(gzip.compress(data[:-1] + b"!"))))
    with pytest.raises(DataError, match="could not be downloaded"):
        named_module._verified("mnist", "labels")
    assert list(cache.iterdir()) == []


def test_a_verified_copy_can_be_found_in_the_users_folder(tmp_path, monkeypatch):
    needs("fashion-mnist")
    source = Path(location("fashion-mnist"))
    folder = tmp_path / "fashion-mnist"
    shutil.copytree(source, folder)
    monkeypatch.setenv("LABKIT_DATA_DIR", str(tmp_path))
    assert location("fashion-mnist") == str(folder)
    assert len(load_dataset("fashion-mnist").split("test")) == 10000
