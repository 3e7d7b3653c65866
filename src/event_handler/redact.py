"""Takes out of texts what nobody may read there: what a URL carries beside its host, passwords, tokens, private keys,
events.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from urllib.parse import unquote, urlsplit

HIDDEN = "***"
TOKEN = 16  # characters of a part of a path, with a digit, that may be a token
SHORTEST_SECRET = (
    6  # characters of a configured secret that is looked for wherever it stands; shorter ones are parts of common words
)
# A quote or an angle bracket ends a URL where the sentence or the JSON around it goes on, and is part of it elsewhere.
_PLAIN = r"""[^\s"'<>\\]|["'<>](?=[^\s,:;.)\]}>"'])|\\(?!["'nrt])"""
_SPACED = r"[^\s@/:]*:(?=\S)(?![0-9]{1,5}(?:[\s,;.)\]]|$))[^@/\n]{1,80}@"  # a password with a blank in it
_URL = re.compile(rf"\b[a-z][a-z0-9+.-]{{0,30}}://(?:\S{{0,4096}}@|{_SPACED})?(?:{_PLAIN})*", re.IGNORECASE)
_AUTHORITY = re.compile(r"(?:.*@)?(?P<host>\[[0-9a-fA-F:.]+(?:%[\w.-]+)?\]|[\w.*-]+)(?P<port>:[0-9]{1,5})?")
_ENDS = ".,;:!?)]}"  # belongs to the sentence around a URL
_NAMED_SO = (
    r"[\w-]{0,60}(?:api[-_]?key|access[-_]?key|auth[-_]?token|client[-_]?secret|credential|passphrase|passwd|password|pwd|secret"
    r"|signature|token)"
)
_RULES: list[tuple[re.Pattern[str], str]] = [
    (re.compile(rf"""(\b{_NAMED_SO}=["']?)[^\s"'&,;)}}]+""", re.IGNORECASE), rf"\1{HIDDEN}"),
    (re.compile(rf"""(["']{_NAMED_SO}\\?["']\s*:\s*\\?["'])[^"'\\]+""", re.IGNORECASE), rf"\1{HIDDEN}"),
    (re.compile(r"([?&](?:code|key|sig)=)[^&\s\"']+", re.IGNORECASE), rf"\1{HIDDEN}"),
    (re.compile(r"""(\bauthorization["']?\s*[:=]\s*["']?)(?:[a-z]+\s+)?[^\s"',]+""", re.IGNORECASE), rf"\1{HIDDEN}"),
    (re.compile(r"""(\b(?:bearer|apikey)\s+)[^\s"',]{8,}""", re.IGNORECASE), rf"\1{HIDDEN}"),
    (re.compile(r"(\bsplunk\s+)[0-9a-f-]{32,}", re.IGNORECASE), rf"\1{HIDDEN}"),
    (re.compile(r"(\bBasic\s+)(?=[A-Za-z+/]*[0-9=])[A-Za-z0-9+/]{6,}={0,2}"), rf"\1{HIDDEN}"),
    (
        re.compile(r"-----BEGIN [A-Z ]*PRIVATE KEY-----.*?(?:-----END [A-Z ]*PRIVATE KEY-----|$)", re.DOTALL),
        "(a private key was here)",
    ),
]
# A receiver may quote the event that it refuses; these keys are in every event of Teleport and in few other answers.
_EVENT = re.compile(r"""[\[{].*?\\?["'](?:cluster_name|ei|uid)\\?["']\s*:.*""", re.DOTALL)

_known: dict[str, None] = {}  # secrets of the settings, in the order in which they are looked for


def know(secrets: Iterable[str]) -> None:
    """Look for these very texts too: what the settings hold may have any form, and stand anywhere."""
    found = {text for text in (*_known, *secrets) if len(text) >= SHORTEST_SECRET}
    _known.clear()
    _known.update(dict.fromkeys(sorted(found, key=len, reverse=True)))


def origin(url: str) -> str:
    """Scheme, host and port: all of a URL that may be shown, for tokens stand in any other part of it."""
    scheme, _, rest = url.strip().partition("://")
    if not rest or not re.fullmatch(r"[A-Za-z][A-Za-z0-9+.-]*", scheme):
        return HIDDEN if url.strip() else ""
    authority = re.split("[/?#]", rest, maxsplit=1)[0]
    if "@" not in authority:
        authority = re.split(r"""["'<>\\]""", authority, maxsplit=1)[0]
    found = _AUTHORITY.fullmatch(authority)
    return f"{scheme}://{found['host']}{found['port'] or ''}" if found else f"{scheme}://{HIDDEN}"


def parts(url: str) -> list[str]:
    """What of a URL of the settings may be secret, as it stands there and decoded."""
    try:
        split = urlsplit(url.strip())
    except ValueError:
        return [url]
    behind = url.partition("://")[2] or url
    userinfo = behind.rpartition("@")[0]
    pairs = [pair.partition("=") for pair in re.split("[&;]", split.query)]
    values = [value for name, _, value in pairs if re.fullmatch(rf"{_NAMED_SO}|code|key|sig", name, re.IGNORECASE)]
    tokens = [part for part in split.path.split("/") if len(part) >= TOKEN and re.search("[0-9]", part)]
    whole = [userinfo, userinfo.partition(":")[2], split.query, split.fragment, *values, *tokens]
    return [text for part in whole for text in {part, unquote(part)}]


def credentials(text: str) -> str:
    """The text as it may be kept: what looks like a secret is replaced and of a URL its origin left, the rest stays."""
    for secret in _known:
        text = text.replace(secret, HIDDEN)
    text = _URL.sub(_origin, text)
    for pattern, replacement in _RULES:
        text = pattern.sub(replacement, text)
    return text


def without_secrets(text: str) -> str:
    """The text as it may be logged: without an event either."""
    return _EVENT.sub("(an event was here)", credentials(text))


def _origin(found: re.Match[str]) -> str:
    url = found[0]
    end = url.rstrip(_ENDS)
    return origin(end) + url[len(end) :]
