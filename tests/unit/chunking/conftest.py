"""Tokenizers of the kinds that models use: the built-in model's, and a byte-level BPE and a Unigram trained here."""

from pathlib import Path

import pytest
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

from rag_core.chunking.tokens import default_tokenizer_path

SENTENCES = [
    "The quick brown fox jumps over the lazy dog.",
    "Retrieval needs chunks that are small enough for the model and large enough to answer a question.",
    "| name | value |\n|------|-------|\n| alpha | 1 |",
    "日本語の文章は空白なしで書かれます。",
    "def main():\n    return 42\n",
] * 20


def _train(path: Path, tokenizer: Tokenizer, trainer: object) -> Path:
    tokenizer.train_from_iterator(SENTENCES, trainer)
    tokenizer.save(str(path))
    return path


@pytest.fixture(scope="session")
def tokenizer_paths(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Path of a tokenizer.json by kind: bert, bpe, unigram."""
    folder = tmp_path_factory.mktemp("tokenizers")
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    bpe.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    bpe_trainer = trainers.BpeTrainer(vocab_size=500, initial_alphabet=alphabet, show_progress=False)
    unigram = Tokenizer(models.Unigram())
    unigram.normalizer = normalizers.NFKC()
    unigram.pre_tokenizer = pre_tokenizers.Metaspace()
    unigram_trainer = trainers.UnigramTrainer(
        vocab_size=300, unk_token="<unk>", special_tokens=["<unk>"], show_progress=False
    )
    return {
        "bert": default_tokenizer_path(),
        "bpe": _train(folder / "bpe.json", bpe, bpe_trainer),
        "unigram": _train(folder / "unigram.json", unigram, unigram_trainer),
    }
