"""Word splitting against the recorded output of nltk 3.10.4's NLTKWordTokenizer."""

import pytest

from research.metrics.treebank import treebank_words

# Each line, and `NLTKWordTokenizer().tokenize(line)` joined by "|".
RECORDED = {
    "": "",
    "   ": "",
    "1998": "1998",
    "3.5%": "3.5|%",
    "1,000 km": "1,000|km",
    "john f. kennedy": "john|f.|kennedy",
    "mr. smith left.": "mr.|smith|left|.",
    "u.s.": "u.s|.",
    "j.k. ": "j.k|.",
    "iphone 5s, 6": "iphone|5s|,|6",
    "a,b,,c": "a|,|b|,|,c",
    "10:30": "10:30",
    'he said "yes".': "he|said|``|yes|''|.",
    '"quoted" text': "``|quoted|''|text",
    "(see [1])": "(|see|[|1|]|)",
    "it's john's": "it|'s|john|'s",
    "i'm we'll they've don't": "i|'m|we|'ll|they|'ve|do|n't",
    "cannot gonna gotta lemme gimme": "can|not|gon|na|got|ta|lem|me|gim|me",
    "wanna go": "wan|na|go",
    "wanna": "wan|na",
    "'tis 'twas": "'|tis|'|twas",
    "d'ye more'n": "d|'ye|more|'n",
    "rock 'n' roll": "rock|'n|'|roll",
    "the dogs' bowl": "the|dogs|'|bowl",
    "wait... what?!": "wait|...|what|?|!",
    "c#;c++ & $5 @home": "c|#|;|c++|&|$|5|@|home",
    "«oui» „ja“": "«|oui|»|„|ja|“",
    "1990\u20131995 \u2014 now": "1990|\u2013|1995|\u2014|now",
    "a--b": "a|--|b",
    "''two'' \"x": "''|two|''|``|x",
    "2*3": "2|*|3",
    "カタカナ test": "カタカナ|test",
    "<b>bold</b>": "<|b|>|bold|<|/b|>",
    'end."': "end|.|''",
    "end.) ": "end|.|)",
    "..": "..",
    "don't.": "do|n't|.",
    "'em and 's": "'|em|and|'s",
}


@pytest.mark.parametrize("line", RECORDED)
def test_recorded_from_nltk(line: str) -> None:
    assert "|".join(treebank_words(line)) == RECORDED[line]
