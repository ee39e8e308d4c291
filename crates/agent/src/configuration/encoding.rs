//! The text of a file in an older encoding that its first line names: modules made in Europe before UTF-8 was usual.

/// What an encoding is called here, if it is read.
fn known(name: &str) -> Option<Encoding> {
    match name.to_ascii_lowercase().as_str() {
        // Whoever says Latin-1 means what browsers read it as.
        "iso-8859-1" | "iso8859-1" | "iso_8859-1" | "latin1" | "windows-1252" | "cp1252" => Some(Encoding::Western),
        "iso-8859-15" | "iso8859-15" | "iso_8859-15" | "latin9" => Some(Encoding::Euro),
        _ => None,
    }
}

#[derive(Clone, Copy)]
enum Encoding {
    Western,
    Euro,
}

/// 0x80 to 0x9f of windows-1252; what it leaves free stays a control character, which XML refuses with its place.
const WESTERN: [char; 32] = [
    '€', '\u{81}', '‚', 'ƒ', '„', '…', '†', '‡', 'ˆ', '‰', 'Š', '‹', 'Œ', '\u{8d}', 'Ž', '\u{8f}', '\u{90}', '‘', '’',
    '“', '”', '•', '–', '—', '˜', '™', 'š', '›', 'œ', '\u{9d}', 'ž', 'Ÿ',
];

/// Name that the XML declaration gives: `<?xml version="1.0" encoding="ISO-8859-1"?>`.
pub(super) fn declared(bytes: &[u8]) -> Option<&str> {
    let rest = bytes.strip_prefix(b"<?xml")?;
    let end = rest.windows(2).take(200).position(|two| two == b"?>")?;
    let text = std::str::from_utf8(&rest[..end]).ok()?;
    let value = text.split_once("encoding")?.1.trim_start().strip_prefix('=')?.trim_start();
    let quote = value.chars().next().filter(|c| matches!(c, '"' | '\''))?;
    value[1..].split(quote).next()
}

/// The text, when the encoding that is declared is one of those.
pub(super) fn decode(bytes: &[u8]) -> Option<String> {
    let encoding = known(declared(bytes)?)?;
    let letter = |byte: &u8| match (encoding, *byte) {
        (Encoding::Western, byte @ 0x80..=0x9f) => WESTERN[usize::from(byte - 0x80)],
        (Encoding::Euro, 0xa4) => '€',
        (Encoding::Euro, 0xa6) => 'Š',
        (Encoding::Euro, 0xa8) => 'š',
        (Encoding::Euro, 0xb4) => 'Ž',
        (Encoding::Euro, 0xb8) => 'ž',
        (Encoding::Euro, 0xbc) => 'Œ',
        (Encoding::Euro, 0xbd) => 'œ',
        (Encoding::Euro, 0xbe) => 'Ÿ',
        (_, byte) => char::from(byte),
    };
    Some(bytes.iter().map(letter).collect())
}

/// The same text with `UTF-8` in its declaration: what is written back is in that.
pub(super) fn redeclared(text: &str) -> String {
    match declared(text.as_bytes()) {
        Some(name) => text.replacen(name, "UTF-8", 1),
        None => text.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn older_texts_are_read() {
        let text = |name: &str, byte: u8| {
            let mut bytes = format!("<?xml version='1.0' encoding='{name}' ?><a>").into_bytes();
            bytes.push(byte);
            decode(&bytes).and_then(|text| text.chars().last())
        };
        assert_eq!(text("ISO-8859-1", 0xe9), Some('é'));
        assert_eq!(text("windows-1252", 0x80), Some('€'));
        assert_eq!(text("iso-8859-15", 0xa4), Some('€'));
        assert_eq!(text("shift_jis", 0xe9), None);
        assert_eq!(declared(b"<?xml version=\"1.0\"?>"), None);
        assert_eq!(declared(b"<?xml encoding="), None);
        assert_eq!(redeclared("<?xml encoding=\"latin1\"?><a/>"), "<?xml encoding=\"UTF-8\"?><a/>");
    }
}
