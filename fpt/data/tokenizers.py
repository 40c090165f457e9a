"""Tokenizers trained on the training texts (atom-level SMILES, characters, words, BPE), or one from the Hub."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from statistics import median

from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import AutoTokenizer, PreTrainedTokenizerBase, PreTrainedTokenizerFast

from fpt.args import DataArguments
from fpt.errors import FPTError, did_you_mean

PAD, UNK, BOS, EOS = SPECIAL = ["[PAD]", "[UNK]", "[BOS]", "[EOS]"]

# A text that has the name of a special token as a word gets "[" and the rest, so that it is not taken for that token.
_NAME = rf"\[(?=(?:{'|'.join(token[1:-1] for token in SPECIAL)})\]"
# How a text is cut into tokens. atom: an atom in brackets, a two-letter organic atom, a ring number above 9, or a character.
PIECES = {
    "atom": pre_tokenizers.Split(Regex(rf"{_NAME})|\[[^\]]*\]|Br|Cl|%\d\d|[\s\S]"), behavior="isolated"),
    "char": pre_tokenizers.Split(Regex(r"[\s\S]"), behavior="isolated"),
    "word": pre_tokenizers.Sequence(
        [pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Split(Regex(rf"^{_NAME}$)"), behavior="isolated")]
    ),
}
# The longest token that BPE learns, in characters or bytes. Longer ones save little (13.4 tokens for a molecule of CYP3A4 in
# place of 13.3), and remember one training text each.
LONGEST_TOKEN = 15
# BPE takes time quadratic in the length of what it merges: longer runs without a space are cut here.
SHORT = pre_tokenizers.FixedLength(512)


def _pieces(texts: Sequence[str], args: DataArguments, words: bool) -> Tokenizer:
    tokenizer = Tokenizer(models.WordLevel(unk_token=UNK))
    tokenizer.pre_tokenizer = PIECES[args.tokenizer or ""]
    if args.tokenizer != "word":
        tokenizer.decoder = decoders.Fuse()
    tokenizer.train_from_iterator(texts, trainers.WordLevelTrainer(special_tokens=SPECIAL, show_progress=False))
    return tokenizer


def _bpe(texts: Sequence[str], args: DataArguments, words: bool) -> Tokenizer:
    """BPE of bytes within words, or of characters where there are none. A token is in two places of different texts at least."""
    different = list(dict.fromkeys(texts))
    longest, alphabet = LONGEST_TOKEN, []
    if words:
        tokenizer = Tokenizer(models.BPE())
        tokenizer.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.ByteLevel(add_prefix_space=False), SHORT])
        tokenizer.decoder = decoders.ByteLevel()
        alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
        least, why = len(alphabet) + len(SPECIAL), "BPE of text starts from the 256 bytes"
    else:
        tokenizer = Tokenizer(models.BPE(unk_token=UNK))
        tokenizer.pre_tokenizer = SHORT
        tokenizer.decoder = decoders.Fuse()
        # Half a text at most, or short texts would become one token each.
        longest = min(longest, max(1, int(median([len(text) for text in different] or [0])) // 2))
        characters = len(set().union(*different))
        least, why = characters + len(SPECIAL), f"the data has {characters} different characters"
    if args.vocab_size < least:
        raise FPTError(
            f"--vocab_size {args.vocab_size} is too small: {why} and {len(SPECIAL)} special tokens; give {least} or more"
        )
    trainer = trainers.BpeTrainer(
        vocab_size=args.vocab_size,
        min_frequency=2,
        max_token_length=longest + 1,  # the trainer stops below it
        initial_alphabet=alphabet,
        special_tokens=SPECIAL,
        show_progress=False,
    )
    tokenizer.train_from_iterator(different, trainer)
    return tokenizer


TRAINED: dict[str, Callable[[Sequence[str], DataArguments, bool], Tokenizer]] = {**dict.fromkeys(PIECES, _pieces), "bpe": _bpe}


def build_tokenizer(texts: Sequence[str], args: DataArguments, words: bool = True) -> PreTrainedTokenizerBase:
    """Return the tokenizer that ``--tokenizer`` names; `texts` are the training inputs and nothing else.

    Every trained sequence is ``[BOS] tokens [EOS]``: the readout reads the state at the last token, which has then
    seen the whole input. The name of a special token in a text is text like any other.

    Args:
        words: whether texts are made of words. ``bpe`` then merges the bytes of a word, and knows every text; of molecules and
            sequences it merges characters.

    Raises:
        FPTError: there is no such tokenizer, or the vocabulary is too small.
    """
    if args.tokenizer not in TRAINED:
        return _from_hub(args.tokenizer or "")
    tokenizer = TRAINED[args.tokenizer](texts, args, words)
    ids = {token: tokenizer.token_to_id(token) for token in SPECIAL}
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{BOS} $A {EOS}", special_tokens=[(BOS, ids[BOS]), (EOS, ids[EOS])]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token=PAD,
        unk_token=UNK,
        bos_token=BOS,
        eos_token=EOS,
        padding_side="right",
        split_special_tokens=True,
    )


def unknown_id(tokenizer: PreTrainedTokenizerBase) -> int | None:
    """The id that stands for what `tokenizer` does not know; None where it has none, or uses one that means something else.

    (GPT-2's unknown token is its end of text: a tokenizer of bytes knows everything.)
    """
    others = (tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.cls_token_id, tokenizer.sep_token_id)
    return None if tokenizer.unk_token_id in others else tokenizer.unk_token_id


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
