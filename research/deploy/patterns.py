"""Personal data that have a form: each found by an expression, and checked by the rule of its kind."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable
from dataclasses import dataclass

IBAN_LENGTHS = (
    "AD24 AE23 AL28 AT20 AZ28 BA20 BE16 BG22 BH22 BR29 BY28 CH21 CR22 CY28 CZ24 DE22 DK18 DO28 EE20 EG29 ES24 "
    "FI18 FO18 FR27 GB22 GE22 GI23 GL18 GR27 GT28 HR21 HU28 IE22 IL23 IQ23 IS26 IT27 JO30 KW30 KZ20 LB28 LC32 "
    "LI21 LT20 LU20 LV21 LY25 MC27 MD24 ME22 MK19 MR27 MT31 MU30 NL18 NO15 PK24 PL28 PS29 PT25 QA29 RO24 RS22 "
    "SA24 SC31 SE24 SI19 SK24 SM27 ST25 SV28 TL23 TN24 TR26 UA29 VA22 VG24 XK20"
)  # ISO 13616: country and characters


@dataclass(frozen=True)
class Pattern:
    """A kind of personal data: what may be some, and whether it is."""

    kind: str
    expression: re.Pattern[str]
    holds: Callable[[str], bool] = lambda found: True


def digits_of(text: str) -> str:
    return "".join(character for character in text if character.isdigit())


def is_card(text: str) -> bool:
    """Luhn's checksum (ISO/IEC 7812) of a number that begins as payment cards do."""
    digits = [int(digit) for digit in digits_of(text)]
    doubled = [sum(divmod(2 * digit, 10)) for digit in digits[-2::-2]]
    return digits[0] in (2, 3, 4, 5, 6) and len(set(digits)) > 1 and (sum(digits[-1::-2]) + sum(doubled)) % 10 == 0


def is_iban(text: str) -> bool:
    """The checksum of ISO 13616: modulo 97 with the first four characters at the end, letters as numbers."""
    plain = "".join(character for character in text.upper() if character.isalnum())
    return int("".join(str(int(character, 36)) for character in plain[4:] + plain[:4])) % 97 == 1


def is_address(text: str) -> bool:
    """Of the internet protocol, version 4 or 6; not a lone `::`, and no time of day."""
    try:
        return ipaddress.ip_address(text).version == 4 or any(map(str.isdigit, text))
    except ValueError:
        return False


def is_phone(text: str) -> bool:
    """8 to 15 digits (E.164) written as a number to dial: `+49 ...`, `0...` in groups, or `555-123-4567`."""
    digits = digits_of(text)
    if not 8 <= len(digits) <= 15 or re.fullmatch(r"[0-9]+[.][0-9]+|[0-9]{1,4}([-./])[0-9]{1,2}\1[0-9]{1,4}", text):
        return False
    american = re.fullmatch(r"(1[-. ])?(\([2-9][0-9]{2}\) ?|[2-9][0-9]{2}[-. ])[2-9][0-9]{2}[-. ][0-9]{4}", text)
    return (
        text[0] == "+" or american is not None or (digits[0] == "0" and len(digits) <= (15 if digits[1] == "0" else 13))
    )


PATTERNS = (  # the first that holds at a place is taken
    Pattern("EMAIL", re.compile(r"(?<![\w.+%'-])[\w.+%'-]+@(?:[\w-]+\.)+[^\W\d_]{2,}")),
    Pattern("SECRET", re.compile(
        r"\b(?:eyJ[\w-]{8,2000}\.[\w-]{8,}\.[\w-]{8,}|AKIA[0-9A-Z]{16}|(?:sk|pk|hf|gh[pousr]|xox[abp]|glpat)[-_][\w-]{16,})"
    )),
    Pattern("IBAN", re.compile(r"\b(?:" + "|".join(
        rf"{each[:2]}[0-9]{{2}}(?: ?[A-Z0-9]){{{int(each[2:]) - 4}}}" for each in IBAN_LENGTHS.split()
    ) + r")(?![A-Za-z0-9])", re.IGNORECASE), is_iban),
    Pattern("CARD", re.compile(r"(?<![0-9])(?:[0-9][ -]?){12,18}[0-9](?![0-9])"), is_card),
    Pattern("MAC", re.compile(r"(?<![\w:-])(?:[0-9A-Fa-f]{2}[:-]){5}[0-9A-Fa-f]{2}(?![\w:-])")),
    Pattern("IP", re.compile(r"(?<![\w.:])[0-9]{1,3}(?:\.[0-9]{1,3}){3}(?![\w:]|\.[0-9])"), is_address),
    Pattern("IP", re.compile(r"(?<![\w.:])(?=[^:\s]{0,4}:)[0-9A-Fa-f:]{2,39}(?:[0-9.]{7,15})?(?![\w:]|\.[0-9])"),
            is_address),
    Pattern("SSN", re.compile(r"(?<![\w-])(?!000|666|9)[0-9]{3}-(?!00)[0-9]{2}-(?!0000)[0-9]{4}(?![\w-])")),
    Pattern("PHONE", re.compile(
        r"(?<![\w.+/-])(?<![0-9][ -])[+(]?[0-9](?:[ ()./-]{0,3}[0-9]){7,14}(?![A-Za-z]|[ .,-]?[0-9])"
    ), is_phone),
)  # fmt: skip
