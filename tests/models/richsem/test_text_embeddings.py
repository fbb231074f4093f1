import json
import logging

import open_clip
import pytest
import torch
from safetensors.torch import load_file, save_file

from models.richsem import text_embeddings as text
from models.richsem.clip import freeze
from models.richsem.official_checkpoint import embedded_clip
from models.richsem.text_embeddings import PROMPTS, cache_key, encode, text_embeddings
from tests.fixtures import require_fixture
from tests.models.tiny import NAMES, clip_settings, tiny_clip, tokenizer
from tools.parity import load_synth
from util.checksum import digest
from util.errors import UserError


def fresh_clip(seed: int = 7, **changes):
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return freeze(open_clip.CLIP(**{**clip_settings(), **changes}))


@pytest.fixture
def count(monkeypatch):
    """Numbers of prompts that were encoded, one an encoding."""
    batches = []
    encode_text = open_clip.CLIP.encode_text

    def counting(self, tokens, *rest, **named):
        batches.append(len(tokens))
        return encode_text(self, tokens, *rest, **named)

    monkeypatch.setattr(open_clip.CLIP, "encode_text", counting)
    return batches


def embed(names, folder, clip=None, unused=()):
    return text_embeddings(clip or tiny_clip(), tokenizer(), names, folder, unused)


def test_prompts_are_the_bare_name_and_the_80_templates():
    prompts = [prompt("tin_can") for prompt in PROMPTS]
    assert len(prompts) == len(set(prompts)) == 81
    assert prompts[0] == "tin_can."
    assert prompts[1] == "a bad photo of a tin_can."
    assert all("tin_can" in prompt for prompt in prompts)


def test_an_embedding_is_the_mean_of_raw_encodings():
    clip = tiny_clip()
    with torch.no_grad():
        each = [clip.encode_text(tokenizer()([prompt("kite")]))[0] for prompt in PROMPTS]
    expected = torch.stack(each).mean(0)
    (found,) = encode(clip, tokenizer(), ["kite"])
    assert torch.allclose(found, expected, atol=1e-5)
    assert abs(found.norm().item() - 1) > 0.01
    assert found.dtype == torch.float32


def test_prompts_go_through_in_batches_and_come_back_to_their_names(monkeypatch, count):
    whole = encode(tiny_clip(), tokenizer(), NAMES)
    monkeypatch.setattr(text, "BATCH", 50)
    count.clear()
    parts = encode(tiny_clip(), tokenizer(), NAMES)
    assert torch.allclose(whole, parts, atol=1e-5)
    assert max(count) == 50 and sum(count) == 81 * len(NAMES)


def test_an_unused_column_is_its_bare_word(count):
    found = encode(tiny_clip(), tokenizer(), ["none", "cat"], unused=(0,))
    assert sum(count) == 82
    with torch.no_grad():
        bare = tiny_clip().encode_text(tokenizer()(["none"]))[0]
    assert torch.allclose(found[0], bare, atol=1e-6)
    assert torch.allclose(found[1], encode(tiny_clip(), tokenizer(), ["cat"])[0], atol=1e-5)


def test_a_second_call_encodes_nothing(tmp_path, count):
    first = embed(NAMES, tmp_path / "new" / "folder")
    assert sum(count) == 81 * len(NAMES)
    count.clear()
    assert torch.equal(embed(NAMES, tmp_path / "new" / "folder"), first)
    assert count == []
    assert len(list((tmp_path / "new" / "folder").iterdir())) == 1


def test_the_key_is_of_everything_that_matters(monkeypatch):
    clip = tiny_clip()
    keys = [cache_key(clip, ["a", "b"]), cache_key(clip, ["b", "a"]), cache_key(clip, ["a"])]
    keys += [cache_key(clip, ["a", "b"], unused=(0,)), cache_key(fresh_clip(8), ["a", "b"])]
    keys.append(cache_key(fresh_clip(7, quick_gelu=True), ["a", "b"]))
    monkeypatch.setattr(text, "PROMPTS", PROMPTS[:5])
    keys.append(cache_key(clip, ["a", "b"]))
    assert len(set(keys)) == len(keys)


def test_the_image_tower_does_not_matter():
    first, second = fresh_clip(), fresh_clip()
    with torch.no_grad():
        second.visual.conv1.weight.add_(1)
    assert cache_key(first, ["a"]) == cache_key(second, ["a"])
    with torch.no_grad():
        second.text_projection.add_(1)
    assert cache_key(first, ["a"]) != cache_key(second, ["a"])


def other_shape(path):
    save_file({"embeddings": torch.zeros(99, 3)}, path)


def other_name(path):
    save_file({"something": torch.zeros(2, 3)}, path)


def half(path):
    path.write_bytes(path.read_bytes()[:50])


def empty(path):
    path.write_bytes(b"")


def a_flipped_bit(path):
    content = bytearray(path.read_bytes())
    content[-3] ^= 1  # the last number's low bits: a plausible number
    path.write_bytes(content)


def without_checksum(path):
    save_file(load_file(path), path)


def another_checksum(path):
    save_file(load_file(path), path, {"sha256": "0" * 64})


def save_whole(embeddings, path):
    """With the right checksum."""
    content = {"embeddings": embeddings}
    save_file(content, path, {"sha256": digest(content, "")})


def not_a_number(path):
    embeddings = load_file(path)["embeddings"]
    embeddings[1, 2] = torch.nan
    save_whole(embeddings, path)


def other_type(path):
    save_whole(load_file(path)["embeddings"].double(), path)


DAMAGES = [half, empty, other_name, other_shape, other_type, a_flipped_bit, not_a_number]


@pytest.mark.parametrize("damage", [*DAMAGES, without_checksum, another_checksum])
def test_a_damaged_cache_is_encoded_anew_with_a_warning(damage, tmp_path, count, caplog):
    first = embed(NAMES[:2], tmp_path)
    (path,) = tmp_path.iterdir()
    damage(path)
    count.clear()
    with caplog.at_level(logging.WARNING, "models.richsem.text_embeddings"):
        again = embed(NAMES[:2], tmp_path)
    assert torch.equal(first, again) and sum(count) == 162
    (record,) = caplog.records
    assert str(path) in record.getMessage() and "damaged" in record.getMessage()
    assert "\n" not in record.getMessage()
    assert torch.equal(load_file(path)["embeddings"], first)


def test_embeddings_that_are_not_finite_are_refused_and_not_cached(tmp_path):
    clip = fresh_clip()
    with torch.no_grad():
        clip.text_projection[0] = torch.nan
    with pytest.raises(UserError, match=r"text embedding of 'red_cup' is not finite \(2 of 2 names\)"):
        embed(NAMES[:2], tmp_path, clip)
    assert list(tmp_path.iterdir()) == []


def test_a_cache_that_cannot_be_written_is_a_warning(tmp_path, caplog):
    blocked = tmp_path / "file"
    blocked.write_text("not a folder")
    with caplog.at_level(logging.WARNING, "models.richsem.text_embeddings"):
        found = embed(NAMES[:1], blocked)
    assert found.shape == (1, 16)
    assert "could not be cached" in caplog.records[-1].getMessage()


def test_the_default_folder_is_in_the_home(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    embed(NAMES[:1], "")
    assert len(list((tmp_path / ".cache" / "richsem").iterdir())) == 1
    embed(NAMES[:1], "~/elsewhere")
    assert (tmp_path / "elsewhere").is_dir()


def test_names_are_data_not_format_strings(tmp_path):
    """A name with braces or quotes is a name."""
    assert embed(["{x}", 'a "b"', "日本"], tmp_path).shape == (3, 16)


@pytest.mark.ci
def test_the_releases_embeddings():
    """Real size: the CLIP of the release's checkpoint with synthetic weights, one class and the bare word."""
    path = require_fixture("parity/synth.py")
    manifest = json.loads(require_fixture("parity/richsem_r50.manifest.json").read_text())
    wanted = load_file(require_fixture("parity/text_embed.safetensors"))
    synth = load_synth(path)
    owner = "class_embed.clip."
    clip = embedded_clip(synth.synth_state_dict({k: v for k, v in manifest.items() if k.startswith(owner)}))
    found = encode(clip, tokenizer(), ["none", "aerosol_can"], unused=(0,))
    (rows,) = wanted.values()
    assert torch.allclose(found, rows[:2], atol=1e-5)
