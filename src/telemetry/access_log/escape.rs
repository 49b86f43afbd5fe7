//! Foreign bytes made harmless: whatever a client sends, a line stays one line, and a quoted field ends
//! where its quotes end.

use std::io::Write;

/// Whether `byte` stands for itself in both encodings.
const fn tame(byte: u8) -> bool {
    matches!(byte, 0x20..=0x7e) && byte != b'"' && byte != b'\\'
}

/// Looks at every byte instead of stopping at the first wild one: that can be done many at a time.
fn all_tame(bytes: &[u8]) -> bool {
    bytes.iter().fold(true, |tame_so_far, byte| tame_so_far & tame(*byte))
}

/// Appends `bytes` to a text line: `"` and `\` with a backslash, control characters and what is not UTF-8
/// as `\xNN`.
pub(super) fn text(out: &mut Vec<u8>, bytes: &[u8]) {
    if all_tame(bytes) {
        return out.extend_from_slice(bytes);
    }
    each(
        bytes,
        out,
        |out, char| match char {
            '"' | '\\' => out.extend_from_slice(&[b'\\', char as u8]),
            _ => {
                let mut buffer = [0; 4];
                char.encode_utf8(&mut buffer).bytes().for_each(|byte| hex(out, byte));
            }
        },
        hex,
    );
}

/// Appends `bytes` to a JSON string, without its quotes; what is not UTF-8 becomes U+FFFD.
pub(super) fn json(out: &mut Vec<u8>, bytes: &[u8]) {
    if all_tame(bytes) {
        return out.extend_from_slice(bytes);
    }
    each(
        bytes,
        out,
        |out, char| match char {
            '"' | '\\' => out.extend_from_slice(&[b'\\', char as u8]),
            _ => {
                // A vector takes everything.
                let _ = write!(out, "\\u{:04x}", char as u32);
            }
        },
        |out, _| out.extend_from_slice("\u{fffd}".as_bytes()),
    );
}

/// Appends what stands for itself; the rest goes to `wild` (a character) or `broken` (a byte).
fn each(
    bytes: &[u8],
    out: &mut Vec<u8>,
    wild: impl Fn(&mut Vec<u8>, char),
    broken: impl Fn(&mut Vec<u8>, u8),
) {
    for chunk in bytes.utf8_chunks() {
        for char in chunk.valid().chars() {
            // Line and paragraph separators end a line for some readers.
            if char.is_control() || matches!(char, '"' | '\\' | '\u{2028}' | '\u{2029}') {
                wild(out, char);
            } else {
                out.extend_from_slice(char.encode_utf8(&mut [0; 4]).as_bytes());
            }
        }
        chunk.invalid().iter().for_each(|byte| broken(out, *byte));
    }
}

fn hex(out: &mut Vec<u8>, byte: u8) {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    out.extend_from_slice(&[b'\\', b'x', DIGITS[usize::from(byte >> 4)], DIGITS[usize::from(byte & 15)]]);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn foreign_bytes_neither_end_a_line_nor_a_field() {
        let rows: [(&[u8], &str, &str); 8] = [
            (b"curl/8.0 (x; y)", "curl/8.0 (x; y)", "curl/8.0 (x; y)"),
            (b"a\r\nGET /", r"a\x0d\x0aGET /", r"a\u000d\u000aGET /"),
            (b"\x1b[31mred", r"\x1b[31mred", r"\u001b[31mred"),
            (b"a\" 200 - \"b", r#"a\" 200 - \"b"#, r#"a\" 200 - \"b"#),
            (b"back\\slash", r"back\\slash", r"back\\slash"),
            ("grüße\u{9b}1m".as_bytes(), r"grüße\xc2\x9b1m", r"grüße\u009b1m"),
            ("a\u{2028}b".as_bytes(), r"a\xe2\x80\xa8b", r"a\u2028b"),
            (b"\xff\tz\x7f", r"\xff\x09z\x7f", "\u{fffd}\\u0009z\\u007f"),
        ];
        for (bytes, as_text, as_json) in rows {
            let (mut one, mut other) = (Vec::new(), Vec::new());
            text(&mut one, bytes);
            json(&mut other, bytes);
            assert_eq!(String::from_utf8_lossy(&one), as_text);
            assert_eq!(String::from_utf8_lossy(&other), as_json);
        }
    }
}
