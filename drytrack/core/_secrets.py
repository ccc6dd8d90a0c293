"""Recognise secrets by name and by shape, and mask them in whatever is recorded.

A name is judged by its words, so ``wandb_api_key`` is a secret while ``monkey``,
``author`` and ``max_tokens`` are not. Where in doubt a value is masked: a
setting that reads ``***`` costs less than a password in a public record.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Sequence

MASK = "***"

# Everything that can make a name a secret contains one of these.
_HINT = re.compile(
    "pass|pwd|token|key|secret|cred|auth|cookie|bearer|jwt", re.IGNORECASE
)
_WORD = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+")

# Looked for in the name without its separators: api_key, apiKey and apikey alike.
_ANYWHERE = re.compile(
    "password|passwd|passphrase"
    "|(?:api|access|private|secret|auth|account|encryption|signing|ssh|master)key"
    "|(?:client|app|api)secret"
    "|(?:auth|access|api|refresh|bearer|session)token"
    "|(?:hf|wandb|github|gitlab)token"
)
_SECRET_WORD = re.compile(
    "pwd|secrets?|credentials?|creds?|auth|oauth|authorization|bearer|cookies?|jwt"
)
_KEY_OWNER = re.compile(
    "wandb|hf|huggingface|openai|anthropic|mistral|cohere|aws|azure|gcp"
    "|google|kaggle|comet|neptune|clearml|github|gitlab|session"
)
# Words before "token" that speak of text or of a model, not of access.
_MODEL_WORD = re.compile(
    "pad|padding|eos|bos|sep|cls|mask|unk|special|class|dist|distill"
    "|register|image|img|video|audio|text|prompt|start|end|stop|begin"
    "|next|last|first|prev|new|prefix|suffix|extra|decoder|encoder|n|num"
    "|max|min|total|per|by|each|every|input|output|target|sub|word|query"
    "|latent|mem|memory|pos|soft|visual|patch|sot|eot|eod"
)
# As the last word they name something about the secret, not the secret.
_ABOUT_WORD = re.compile(
    "path|file|filename|dir|folder|name|type|method|mode|url|uri|endpoint"
    "|length|len|size|count|enabled|required|timeout|provider|scheme"
    "|policy|format|version|env|var|expiry|expires"
)


def is_secret_key(key: str) -> bool:
    """Tell whether a value under this name should be masked.

    Numbers, booleans and None are never secrets, whatever their name; the
    caller, who has the value, leaves those alone.

    Args:
        key: The name of a setting, variable, header or option; any case.
    """
    return _HINT.search(key) is not None and _is_secret(key[:256])


@functools.lru_cache(maxsize=1024)
def _is_secret(key: str) -> bool:
    words = [word.lower() for word in _WORD.findall(key)]
    if not words or _ABOUT_WORD.fullmatch(words[-1]):
        return False
    if words == ["pwd"] and key.isupper():  # The shell's working directory.
        return False
    if _ANYWHERE.search("".join(words)) or any(map(_SECRET_WORD.fullmatch, words)):
        return True
    before = words[-2] if len(words) > 1 else ""
    if words[-1] == "token":
        return _MODEL_WORD.fullmatch(before) is None
    return words[-1] == "key" and _KEY_OWNER.fullmatch(before) is not None


# Possessive and bounded quantifiers keep every pattern linear in the text.
# The second form is for passwords with "/", "?" or "#", which drivers accept
# unescaped; a port is not taken for one.
_URL_LOGIN = re.compile(
    r"""(?<=[A-Za-z0-9])://
    (?: [^\s/?\#"'<>]{0,512} (?=@) | [^\s/?\#"'<>:@]{0,256} :
        (?!\d{1,5}[/?\#,]) [^\s"'<>@]{1,512} ) @""",
    re.VERBOSE,
)
_NAMED = re.compile(
    r"""(?<![\w.\-])([\w.\-]{1,200}+)
    (?: [\]"'\\]{0,6}\s{0,3}[=:]\s{0,3} | (?<=[\w])\s{1,3}(?=[^\s\-=:]) )""",
    re.VERBOSE,
)
_VALUE = re.compile(
    r"""(?P<open>") (?:[^"\\]|\\.)*+ (?P<close>"?)
    |   (?P<open_>') (?:[^'\\]|\\.)*+ (?P<close_>'?)
    |   (?P<open__>\\{1,8}["']) (?:(?!\\{0,8}["']).)*+ (?P<close__>\\{0,8}["']|)
    |   (?:(?:Bearer|Basic|Token|Digest)\s{1,3})?
        [^\s&;"']+? (?=[)\]},]{0,8}(?:[\s&;"']|$))""",
    re.VERBOSE | re.IGNORECASE | re.DOTALL,
)
# Settings that happen to have a secret's name; a longer number may be a PIN.
_HARMLESS_VALUE = re.compile(r"[+-]?\d{0,3}|true|false|none|null|\?\?\?", re.IGNORECASE)

_SHAPE_HINTS = ("sk-", "hf_", "gh", "glpat-", "xox", "AKIA", "ASIA", "AIza", "eyJ")
_SHAPE = re.compile(
    r"""(?<!\w)(?: sk-(?:[A-Za-z0-9]{20,}|(?=[\w\-]{0,40}\d)[\w\-]{16,}+)
    | hf_[A-Za-z0-9]{20,} | gh[pousr]_[A-Za-z0-9]{20,} | github_pat_\w{20,}
    | glpat-[\w\-]{16,} | xox[abeoprs]-[\w\-]{10,} | A[KS]IA[0-9A-Z]{16}
    | AIza[\w\-]{30,} | eyJ[\w\-]{10,}+\.[\w\-]{10,}+\.[\w\-]+ )""",
    re.VERBOSE,
)
_BEARER = re.compile(r"\b(bearer\s{1,3})[\w.~+/=\-]{8,}", re.IGNORECASE)
_PRIVATE_KEY = re.compile(
    r"(-----BEGIN [A-Z ]{0,30}PRIVATE KEY-----).*?(-----END|\Z)", re.DOTALL
)


def mask_text(text: str) -> str:
    """Mask credentials inside a text and leave the rest as it is.

    Masked are the user part of URLs, values assigned to secret names
    (``api_key=…``, ``"token": "…"``, ``--password …``) and the well-known
    shapes of access keys.
    """
    if "://" in text and "@" in text:
        text = _URL_LOGIN.sub(_mask_login, text)
    if _HINT.search(text):
        text = _mask_named(text)
        text = _BEARER.sub(rf"\g<1>{MASK}", text)
    if "PRIVATE KEY-----" in text:
        text = _PRIVATE_KEY.sub(rf"\g<1>{MASK}\g<2>", text)
    if any(hint in text for hint in _SHAPE_HINTS):
        text = _SHAPE.sub(MASK, text)
    return text


def mask_command_line(argv: Sequence[str]) -> list[str]:
    """Mask the secrets of a command line.

    Understood are ``--token=x``, ``--token x``, ``db.password=x`` and all that
    :func:`mask_text` finds inside an argument.
    """
    masked: list[str] = []
    after_secret = False
    for argument in argv:
        name, equals, value = argument.partition("=")
        option = re.fullmatch(r"[-+~/]{0,2}[\w.\-\[\]]+", name) is not None
        if after_secret and not argument.startswith("-"):
            masked.append(_mask_value(argument))
        elif equals and option and is_secret_key(name):
            masked.append(f"{name}={_mask_value(value)}")
        else:
            masked.append(mask_text(argument))
        after_secret = (
            not equals and option and name.startswith("-") and is_secret_key(name)
        )
    return masked


def _mask_value(value: str) -> str:
    return value if _HARMLESS_VALUE.fullmatch(value) else MASK


def _mask_login(match: re.Match[str]) -> str:
    login = match[0][3:-1]
    web = match.string[max(0, match.start() - 5) : match.start()].lower()
    # A user alone ("ssh://git@host") is no secret, but on the web it is a token.
    if ":" in login or web.endswith(("http", "https")):
        return f"://{MASK}@"
    return match[0]


def _mask_named(text: str) -> str:
    pieces: list[str] = []
    done = position = 0
    while named := _NAMED.search(text, position):
        position = named.end()
        name = named[1]
        assigned = text[named.end(1) : position].strip() != ""
        # Without a sign only an option takes a value: "--token x", not "token x".
        if not (assigned or name.startswith("--")) or not is_secret_key(name):
            continue
        value = _VALUE.match(text, position)
        if value is None:
            continue
        opening = value["open"] or value["open_"] or value["open__"] or ""
        closing = value["close"] or value["close_"] or value["close__"] or ""
        bare = value[0][len(opening) : len(value[0]) - len(closing)]
        pieces += [text[done:position], opening, _mask_value(bare), closing]
        done = position = value.end()
    pieces.append(text[done:])
    return "".join(pieces)
