"""The main language of a text as an ISO 639-1 code, or None where it cannot be told."""

import re
from functools import cache
from typing import Any, Final

# kreuzberg answers in ISO 639-3; these are the languages that its detector (whatlang) knows and that have a short code.
_CODES: Final = (
    "afr:af aka:ak amh:am ara:ar aze:az bel:be ben:bn bul:bg cat:ca ces:cs cmn:zh dan:da deu:de ell:el eng:en epo:eo "
    "est:et fin:fi fra:fr guj:gu heb:he hin:hi hrv:hr hun:hu hye:hy ind:id ita:it jav:jv jpn:ja kan:kn kat:ka khm:km "
    "kor:ko lat:la lav:lv lit:lt mal:ml mar:mr mkd:mk mya:my nep:ne nld:nl nob:no ori:or pan:pa pes:fa pol:pl por:pt "
    "ron:ro rus:ru sin:si slk:sk slv:sl sna:sn spa:es srp:sr swe:sv tam:ta tel:te tgl:tl tha:th tuk:tk tur:tr ukr:uk "
    "urd:ur uzb:uz vie:vi yid:yi zul:zu"
)
_SHORT: Final = dict(pair.split(":") for pair in _CODES.split())
_SAMPLE_CHARS: Final = 4_000
_SAMPLES: Final = 3  # a manual's first page is often a licence in English
_MIN_LETTERS: Final = 40
_MIN_LETTERS_SURE: Final = 500
_MIN_LETTERS_WIDE: Final = 12  # scripts that write a word in one or two characters
_NOISE: Final = re.compile(r"```.*?(?:```|\Z)|`[^`\n]*`|https?://\S+|[\w.+-]+@[\w-]+\.\S+|[|#>*_~=\-\d]+", re.DOTALL)
_WIDE: Final = re.compile("[\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af]")
# One of these scripts is one language; technical texts mix in so much English that the detector goes by that instead.
_SCRIPTS: Final = ((re.compile("[\u3041-\u30fe]"), 0.05, "ja"), (re.compile("[\uac00-\ud7a3]"), 0.1, "ko"))


@cache
def _config() -> Any:
    import kreuzberg

    return kreuzberg.ExtractionConfig(
        use_cache=False,
        enable_quality_processing=False,
        output_format="plain",
        language_detection=kreuzberg.LanguageDetectionConfig(enabled=True, min_confidence=0.8),
        concurrency=kreuzberg.ConcurrencyConfig(max_threads=1),
    )


def detect_language(text: str, declared: str | None = None) -> str | None:
    """Detect the language of a Markdown text from samples of it, code and addresses left out.

    What the document declares counts where the text is short (a page of identifiers in English is easily taken for
    French) or the detector is unsure; a long text outweighs it, because templates declare English for everything.
    """
    step = max(_SAMPLE_CHARS, len(text) // _SAMPLES)
    parts = (text[start : start + _SAMPLE_CHARS] for start in range(0, min(len(text), step * _SAMPLES), step))
    sample = " ".join(_NOISE.sub(" ", "\n".join(parts)).split())
    letters = sum(map(str.isalpha, sample))
    if letters < (_MIN_LETTERS_WIDE if _WIDE.search(sample) else _MIN_LETTERS):
        return declared
    for script, share, language in _SCRIPTS:
        if len(script.findall(sample)) >= share * letters:
            return language
    if declared and letters < _MIN_LETTERS_SURE:
        return declared
    import kreuzberg

    found = kreuzberg.extract_bytes_sync(sample.encode(), "text/plain", _config()).detected_languages
    return _SHORT.get(found[0], declared) if found else declared
