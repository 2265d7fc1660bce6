"""Texts on which tokenizers that are nearly the same come apart."""
# ruff: noqa: RUF001

# By what is awkward about them; each is tokenized alone.
AWKWARD = {
    "empty": "",
    "plain": "The capital of France is Paris.",
    "one space": " ",
    "spaces": "  two  three   spaces ",
    "only spaces": " " * 33,
    "lines": "\n\none\r\n\r\ntwo\n \n  three\t\tfour \n",
    "only lines": "\n" * 9 + "\r\r\n",
    "tabs": "\t\tif x:\n\t\t\treturn  y\t# why\t\n",
    "odd spaces": "a\u00a0b\u2003c\u200bd\ufeffe\u3000f\u2028g\u2029h\u0085i",
    "digits": "0 7 42 365 1,234,567.89 007 3.14e-10 2026-11-21 12:34:56 +49(0)30-1234567",
    "long number": "31415926535897932384626433832795028841971693993751058209749445923078164",
    "other digits": "٣٤٥ ४२ ½ ⅷ ²³ ①② 𝟘𝟙𝟚",
    "contractions": "I'm, you'RE, we'll, they'd've, rock 'n' roll, it's O'Reilly's; O'Donnell, D'Souza; it’s ‘quoted’",
    "case": "HTTPServer iPhone McDonald camelCase snake_case SCREAMING_CASE kebab-case AÇÃO L'ÉTAT",
    "punctuation": "((a)) ... --- !!! ?!? … – — «a» „b“ {\"key\": [1, 'two']} a_b-c/d\\e",
    "accents": "Größe, façade, naïve, Łódź, Ðóttir, ﬁne ﬀ Ǆ ſ",
    "combining": "cafe\u0301 n\u0303 o\u0302\u0323 Z\u0351\u036b\u0343\u036a\u0302\u033d\u034f\u0334\u0319a\u0323",
    "scripts": "日本語 中文字 한국어 Ελληνικά русский ไทย မြန်မာ ქართული አማርኛ",
    "joined scripts": "हिन्दी क्षत्रिय தமிழ் বাংলা ക്ഷ",
    "jamo": "\u1112\u1161\u11ab\u1100\u1173\u11af ㅋㅋㅋ",
    "right to left": "\u202bשלום עולם\u202c and \u0627\u0644\u0633\u0644\u0627\u0645 \u200f(ok)\u200e 123",
    "emoji": "👍 👩‍👩‍👧‍👦 🏳️‍🌈 🇫🇷 ☃️ 👋🏽 1️⃣ 🫠",
    "rare planes": "𝔘𝔫𝔦𝔠𝔬𝔡𝔢 𐍈 𒀀 \U000f0000 \ue000 \U0010fffd",
    "controls": "a\x01b\x07c\x1b[31mred\x1b[0m\x7fd",
    "code": 'def f(x: int) -> str:\n    """Doc."""\n    return f"{x!r:>{10}}" if x != 0 else \'\\n\'\n',
    "more code": "#include <vector>\nint main(){std::vector<int>v{1,2};for(auto&x:v)x<<=1;return!v.empty();}//ok",
    "markup": '<div class="a">&nbsp;<!-- no --></div> | a | b |\n|---|---|\n**bold** _it_ `code` [l](https://a.b/c?d=e&f#g)',
    "formula": "$\\int_0^\\infty e^{-x^2}\\,dx=\\frac{\\sqrt{\\pi}}{2}$ ∀x∈ℝ: ⌈x⌉≥x ∧ ¬∃y≠0",
    "special tokens": "<|begin_of_text|>a<|eot_id|> <|end_header_id|>\n\n <|eot_id|><|im_start|>user<|im_end|>",
    "other specials": "<s>a</s> [INST] b [/INST] <start_of_turn>user<end_of_turn> <|endoftext|><unk><pad> <bos><eos>",
    "nearly special": "<|eot_id> <|EOT_ID|> <| eot_id |> <|finetune_right_pad_id| <|im_start |> [ INST] < s> <0x0A>",
    "lower one eighth block": "▁a ▁▁b\u0120c",
    "long word": "antidisestablishmentarianism" * 20,
    "one letter": "a" * 300,
    "no spaces": "thequickbrownfoxjumpsoverthelazydog" + "日本" * 40,
    "base64": "TG9yZW0gaXBzdW0gZG9sb3Igc2l0IGFtZXQsIGNvbnNlY3RldHVyIGFkaXBpc2NpbmcgZWxpdC4=",
    "zalgo spaces": "a \u0301 b\u200d c\u200c\u200dd\u2060e",
}  # fmt: skip

# Conversations as the chat asks them; what a template refuses is left out.
CHATS = (
    [{"role": "user", "content": "Hello!"}],
    [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "  What's 12 + 345?\n"},
        {"role": "assistant", "content": "12 + 345 = 357.\n\n"},
        {"role": "user", "content": "And <|eot_id|> of </s> that? 👩‍👩‍👧‍👦"},
    ],
)
