"""Tokenizers for sequences that are no language: atom-level SMILES, BPE of the training data, or one from the Hub."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from tokenizers import Regex, Tokenizer, models, pre_tokenizers, processors, trainers
from transformers import AutoTokenizer, PreTrainedTokenizerBase, PreTrainedTokenizerFast

from fpt.args import DataArguments
from fpt.errors import FPTError, did_you_mean

PAD, UNK, BOS, EOS = SPECIAL = ["[PAD]", "[UNK]", "[BOS]", "[EOS]"]

# How a text is cut into tokens. atom: an atom in brackets, a two-letter organic atom, a ring number above 9, or a character.
PIECES = {
    "atom": pre_tokenizers.Split(Regex(r"\[[^\]]*\]|Br|Cl|%\d\d|."), behavior="isolated"),
    "char": pre_tokenizers.Split(Regex(r"[\s\S]"), behavior="isolated"),
    "word": pre_tokenizers.WhitespaceSplit(),
}


def _pieces(texts: Sequence[str], args: DataArguments) -> Tokenizer:
    tokenizer = Tokenizer(models.WordLevel(unk_token=UNK))
    tokenizer.pre_tokenizer = PIECES[args.tokenizer or ""]
    tokenizer.train_from_iterator(texts, trainers.WordLevelTrainer(special_tokens=SPECIAL, show_progress=False))
    return tokenizer


def _bpe(texts: Sequence[str], args: DataArguments) -> Tokenizer:
    tokenizer = Tokenizer(models.BPE(unk_token=UNK))
    trainer = trainers.BpeTrainer(vocab_size=args.vocab_size, special_tokens=SPECIAL, show_progress=False)
    tokenizer.train_from_iterator(texts, trainer)
    if tokenizer.get_vocab_size() > args.vocab_size:
        raise FPTError(
            f"--vocab_size {args.vocab_size} is too small: the data has {tokenizer.get_vocab_size()} single characters and"
            " special tokens"
        )
    return tokenizer


TRAINED: dict[str, Callable[[Sequence[str], DataArguments], Tokenizer]] = {**dict.fromkeys(PIECES, _pieces), "bpe": _bpe}


def build_tokenizer(texts: Sequence[str], args: DataArguments) -> PreTrainedTokenizerBase:
    """Return the tokenizer that ``--tokenizer`` names; `texts` are the training inputs and nothing else.

    Every trained sequence is ``[BOS] tokens [EOS]``: the readout reads the state at the last token, which has then
    seen the whole input.

    Raises:
        FPTError: there is no such tokenizer, or the vocabulary is too small.
    """
    if args.tokenizer not in TRAINED:
        return _from_hub(args.tokenizer or "")
    tokenizer = TRAINED[args.tokenizer](texts, args)
    ids = {token: tokenizer.token_to_id(token) for token in SPECIAL}
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{BOS} $A {EOS}", special_tokens=[(BOS, ids[BOS]), (EOS, ids[EOS])]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token=PAD, unk_token=UNK, bos_token=BOS, eos_token=EOS, padding_side="right"
    )


def _from_hub(name: str) -> PreTrainedTokenizerBase:
    try:
        tokenizer = AutoTokenizer.from_pretrained(name)
    except Exception as error:
        reason = str(error).strip().splitlines()[0]
        raise FPTError(
            f"--tokenizer {name!r} is neither {' nor '.join(sorted(TRAINED))}{did_you_mean(name, TRAINED)}, and it can't be"
            f" loaded from a folder or the Hub: {reason}"
        ) from None
    tokenizer.padding_side = "right"
    if tokenizer.pad_token is None:
        # Padded positions are masked, so any token serves.
        tokenizer.pad_token = tokenizer.eos_token or tokenizer.unk_token
    return tokenizer


def encode_texts(texts: Sequence[str], tokenizer: PreTrainedTokenizerBase, max_length: int) -> tuple[list[list[int]], list[bool]]:
    """Tokenize; a sequence longer than `max_length` loses tokens before its last one, which the readout reads.

    Returns:
        The token ids of each text, and whether it was cut.
    """
    ids = tokenizer(list(texts), add_special_tokens=True)["input_ids"]
    cut = [len(i) > max_length for i in ids]
    return [i if not c else i[: max_length - 1] + i[-1:] for i, c in zip(ids, cut, strict=True)], cut
