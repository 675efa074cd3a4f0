"""Texts that break tokenizers, templates and JSON encoders that are not written with care."""

__all__ = ["ODD_TEXTS"]

ODD_TEXTS = {
    "emoji": "🌊🌕 tides 👩‍👩‍👧‍👦 and the moon 🏴󠁧󠁢󠁳󠁣󠁴󠁿",
    "right-to-left": "المد والجزر يحدثان بسبب جاذبية القمر. גאות ושפל",
    "NUL": "tides\0and\0the moon\x01\x1f",
    "lone surrogate": "tides \ud800 and the moon \udfff",
    "CJK": "潮汐是由月球的引力引起的。潮の満ち引き 조석",
    "combining": "ti\u0301\u0302\u0303\u0304des " + "\u0301" * 200,
    "byte order mark": "\ufefftides and the moon\u2028\u2029",
    "special tokens": "[CLS] tides [SEP] moon [MASK] </s> <|im_end|> <|endoftext|>",
    "braces and quotes": '{"query": "tides"} \\ "moon" \'sun\' {{x}} %s ${HOME}',
    "one letter": "a",
    "marks only": "?!… --- ***",
    "very long": "the moon pulls the sea and the tides follow it " * 4_256,  # 200,032 characters
    "one long word": "x" * 200_000,
}
