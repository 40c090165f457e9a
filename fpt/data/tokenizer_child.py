"""A program by itself: try a tokenizer where it can do no harm. `fpt.data.tokenizer_probe` starts it.

Reads a line of JSON: ``paths`` of packages, ``memory`` in bytes, ``seconds``, ``vocab_size`` (or null), ``texts``. The rest of
its input is a tokenizer's JSON. It prints a line of JSON, ``{"error": null}`` or why the tokenizer can't be used; or ends.
"""

import contextlib
import json
import sys


def limit(limits: dict[str, int]) -> None:
    """Let the system end this process when it takes more; Windows has no such limits, and macOS not all of them."""
    with contextlib.suppress(ImportError):
        import resource

        for kind, most in {**limits, "RLIMIT_CORE": 0}.items():
            with contextlib.suppress(AttributeError, ValueError, OSError):
                resource.setrlimit(getattr(resource, kind), (most, most))


def refused(text: str, vocab_size: int | None, probes: list[str]) -> str | None:
    """Why the tokenizer can't be used, or None."""
    from tokenizers import Tokenizer

    try:
        tokenizer = Tokenizer.from_str(text)
    except Exception as error:  # the library raises the bare class
        return str(error)
    known = tokenizer.get_vocab(with_added_tokens=True)
    highest = max(known.values(), default=-1)
    if not known or (vocab_size is not None and highest >= vocab_size):
        return f"its ids go up to {highest:,}, and the embedding has {vocab_size} rows"
    for probe in probes:
        for special in (True, False):
            # An error of a text is one of its row; a panic, which is none, is one of the tokenizer.
            with contextlib.suppress(Exception):
                ids = tokenizer.encode(probe, add_special_tokens=special).ids
                if any(index > highest for index in ids):
                    return f"it gives the id {max(ids):,}, and its vocabulary ends at {highest:,}"
    if tokenizer.decoder is not None:
        for token in known:
            with contextlib.suppress(Exception):
                tokenizer.decoder.decode([token])
    return None


def main() -> None:
    """Read, limit, try, say."""
    order = json.loads(sys.stdin.buffer.readline())
    sys.path[:0] = order["paths"]
    limit({"RLIMIT_AS": order["memory"], "RLIMIT_CPU": order["seconds"]})
    text = sys.stdin.buffer.read().decode("utf-8")
    try:
        error = refused(text, order["vocab_size"], order["texts"])
    except BaseException as caught:  # a panic of Rust is no Exception
        error = f"it fails: {caught}"
    print(json.dumps({"error": error}))


if __name__ == "__main__":
    main()
